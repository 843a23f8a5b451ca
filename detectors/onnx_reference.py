"""FTA407 onnx-reference: does an ONNX model reach outside its own file?

**Question.** Does external data name an absolute path, a parent folder, an address or nothing at all? Does
the graph use operators of a custom library, call Python, or redefine standard operators?

**Why an attacker causes it.** External data reads any file of the host into a tensor (CVE-2022-25882,
CVE-2024-5187, CVE-2024-27318); custom operators ask the user to load a shared library; a function with the
name of a standard operator changes what the graph computes.

**How it is decided.** The protobuf fields are walked without loading the model: every external-data entry,
operator domain and function is read. HIGH for each.

**Known false positives.** Models for runtimes with operators of their own.
**Known evasions.** External data beside the model is weights like any other; links are FTA422's.
**Cost.** One pass over the fields; tensor bytes are skipped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from detectors.file_facts import SurveyDetector
from ftsec_audit.formats.facts import Fact, FileFacts
from ftsec_audit.formats.sniff import Kind
from ftsec_audit.types import Rule, Severity

RULE = Rule(
    id="FTA407",
    name="onnx-reference",
    question="Does an ONNX model reach outside its own file?",
    severity=Severity.HIGH,
    remediation="Refuse the model, or load it from a folder that holds its own data and nothing else.",
)


@dataclass(frozen=True, kw_only=True)
class OnnxReference(SurveyDetector):
    """Reports external data, custom operators and replaced standard operators."""

    rules: ClassVar[tuple[Rule, ...]] = (RULE,)
    clean = "{n} ONNX models that refer to nothing outside their folder"
    absent = "no file is an ONNX model"

    def found(self, facts: FileFacts) -> Sequence[Fact]:
        return facts.onnx

    def asked(self, facts: FileFacts) -> int:
        return int(facts.kind is Kind.ONNX)
