"""FTA404 resource-bomb: would opening a file use far more memory or time than its size explains?

**Question.** Does a file unpack to hundreds of times its size, hold objects that share parts so often that
walking over them never ends, nest thousands of levels deep, or claim counts, lengths and shapes that its
bytes cannot hold?

**Why an attacker causes it.** To stop the host that loads or scans the model (CWE-400, CWE-409), or to make
a scanner give up before it reaches the payload.

**How it is decided.** Every reader is bounded and says which bound was met: decompression above 96 MiB at a
ratio above 200, 20,000 archive members or 32 MiB of their names, memo indices beyond the opcodes read,
operands and arrays beyond the file, integers of more than 4,300 digits, 10,000 nested marks, objects whose
expanded size is 1,000 times their own and above 5·10⁷ parts.

**Known false positives.** Archives of all-zero tensors packed above a ratio of 200.
**Known evasions.** Memory that a loader allocates by design, e.g. for a large but honest tensor.
**Cost.** At most 1 GiB unpacked per file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from detectors.file_facts import SurveyDetector
from ftsec_audit.formats.facts import Fact, FileFacts
from ftsec_audit.types import Rule, Severity

RULE = Rule(
    id="FTA404",
    name="resource-bomb",
    question="Would opening a file use far more memory or time than its size explains?",
    severity=Severity.HIGH,
    remediation="Do not open the file outside a process with memory and time limits.",
)


@dataclass(frozen=True, kw_only=True)
class ResourceBomb(SurveyDetector):
    """Reports files that claim or unfold to absurd sizes."""

    rules: ClassVar[tuple[Rule, ...]] = (RULE,)
    clean = "{n} files, none of which unfolds or claims beyond its size"

    def found(self, facts: FileFacts) -> Sequence[Fact]:
        return facts.bombs
