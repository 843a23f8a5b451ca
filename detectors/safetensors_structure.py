"""FTA405 safetensors-structure: do two readers see different tensors, or bytes that belong to none?

**Question.** Does the header repeat a name or a key, lie about lengths, overlap tensors, leave holes or a
tail, overflow a shape, or is it padded with anything but spaces?

**Why an attacker causes it.** Parsers differ on repeated keys, so the tensor that was reviewed need not be
the one that is loaded; holes and tails carry payloads for a second stage (CWE-436, CWE-20).

**How it is decided.** The header is parsed by a bounded parser that keeps repeated keys, and every entry is
checked against the file. MEDIUM for unknown keys and odd metadata, HIGH for the rest.

**Known false positives.** Files written by tools that align tensors with gaps.
**Known evasions.** Payloads in the low bits of weights; these are no matter of structure.
**Cost.** The header, and the bytes of holes and tails.
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
    id="FTA405",
    name="safetensors-structure",
    question="Do two safetensors readers see different tensors, or bytes that belong to none?",
    severity=Severity.HIGH,
    remediation="Load and save the file again with the reference implementation, and compare every tensor.",
)


@dataclass(frozen=True, kw_only=True)
class SafetensorsStructure(SurveyDetector):
    """Reports what the reference loader would refuse or hide."""

    rules: ClassVar[tuple[Rule, ...]] = (RULE,)
    clean = "{n} safetensors files, each with one meaning"
    absent = "no file is in the safetensors format"

    def found(self, facts: FileFacts) -> Sequence[Fact]:
        return facts.safetensors

    def asked(self, facts: FileFacts) -> int:
        return int(facts.kind is Kind.SAFETENSORS)
