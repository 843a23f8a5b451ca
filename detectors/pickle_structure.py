"""FTA402 pickle-structure: is a pickle stream built in a way that no pickler builds it?

**Question.** Does a stream break off after it has called something, overwrite its memo, leave values on the
stack, straddle frames, repeat its header, put items into what is no container, use persistent ids that are
no torch storages, or carry data behind its end?

**Why an attacker causes it.** The unpickler executes a stream opcode by opcode and fails only afterwards: a
stream without STOP, or with garbage behind the payload, runs and breaks scanners that want a whole one
(nullifAI, 2025). Memo tricks and repeated headers make scanner and unpickler disagree on what is called.

**How it is decided.** The stream is followed past every such error; each is a fact with its offset. Data
behind the last stream is MEDIUM, all else HIGH: none of it occurs in files that Python, torch, NumPy or
joblib have written.

**Known false positives.** A file damaged in transfer after an import; it cannot be loaded either.
**Known evasions.** None of the errors is needed for a payload: FTA401 judges what is called.
**Cost.** None beyond FTA401.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from detectors.file_facts import SurveyDetector
from ftsec_audit.formats.facts import Fact, FileFacts
from ftsec_audit.types import Rule, Severity

RULE = Rule(
    id="FTA402",
    name="pickle-structure",
    question="Is a pickle stream built in a way that no pickler builds it?",
    severity=Severity.HIGH,
    remediation="Treat the file as hostile; a real checkpoint can be saved again by its author.",
)


@dataclass(frozen=True, kw_only=True)
class PickleStructure(SurveyDetector):
    """Reports streams that were edited by hand."""

    rules: ClassVar[tuple[Rule, ...]] = (RULE,)
    clean = "{n} files with pickle streams, all built as a pickler builds them"
    absent = "no file holds a pickle"

    def found(self, facts: FileFacts) -> Sequence[Fact]:
        return facts.pickle_structure

    def asked(self, facts: FileFacts) -> int:
        return int(facts.streams > 0)
