"""FTA406 gguf-structure: is a GGUF header one that its writers do not produce?

**Question.** Do counts, lengths, dimensions or offsets overflow, are keys or tensors repeated, is the
alignment impossible, do byte tokens name no byte, does data follow the last tensor?

**Why an attacker causes it.** Native loaders have turned such headers into heap overflows (CVE-2024-23496,
CVE-2024-25664 to -25668, CVE-2025-53630), and of two chat templates under one key the second wins.

**How it is decided.** A bounded reader checks every length against the file before it follows it. HIGH, but
MEDIUM for unknown tensor types, misaligned tensors and holes.

**Known false positives.** Tensor types newer than this reader.
**Known evasions.** Values that are well formed and wrong, such as a malicious template: FTA411, FTA412.
**Cost.** The header; strings of vocabularies are skipped one by one.
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
    id="FTA406",
    name="gguf-structure",
    question="Is a GGUF header one that its writers do not produce?",
    severity=Severity.HIGH,
    remediation="Do not load the file; convert the original model again.",
)


@dataclass(frozen=True, kw_only=True)
class GgufStructure(SurveyDetector):
    """Reports headers that loaders read differently or crash on."""

    rules: ClassVar[tuple[Rule, ...]] = (RULE,)
    clean = "{n} GGUF files with sound headers"
    absent = "no file is in the GGUF format"

    def found(self, facts: FileFacts) -> Sequence[Fact]:
        return facts.gguf_structure

    def asked(self, facts: FileFacts) -> int:
        return int(facts.kind is Kind.GGUF)
