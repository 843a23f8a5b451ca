"""FTA499 unreadable-file: was every file read as far as the other rules need?

**Question.** Is there a file that is damaged, too large, of a kind that is not read, or not what its name
says?

**Why an attacker causes it.** A scanner that skips what it cannot read is passed by breaking the file just
enough. Here such a file leaves the question open, and the verdict cannot be PASS.

**How it is decided.** Every reader says what it could not read and why; each file is listed with its reasons.
What is left out on purpose and cannot matter (an image, checksums of large tensors) is listed too, without
weight.

**Known false positives.** Formats of honest models that are not read, such as HDF5.
**Known evasions.** None known: the list is what the readers did not finish.
**Cost.** None.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

from ftsec_audit.contracts import ArtifactDetector, Subject
from ftsec_audit.formats.facts import FileFacts
from ftsec_audit.formats.survey import survey
from ftsec_audit.formats.walk import SurveyLimits
from ftsec_audit.types import NotLookedAt, Observation, Rule, Severity

RULE = Rule(
    id="FTA499",
    name="unreadable-file",
    question="Is there a file that could not be read as far as the other rules need?",
    severity=Severity.MEDIUM,
    remediation="Download the file again, or have it removed from the artifact if nothing needs it.",
)


@dataclass(frozen=True, kw_only=True)
class UnreadableFile(ArtifactDetector):
    """Lists what was not read, file by file."""

    rules: ClassVar[tuple[Rule, ...]] = (RULE,)
    limits: SurveyLimits = field(default_factory=SurveyLimits)

    def inspect(self, subject: Subject) -> Iterator[Observation]:
        files = survey(subject.artifact, self.limits).files
        unread = [facts for facts in files if facts.unread]
        for facts in files:
            yield from _not_looked_at(facts)
        if unread:
            names = ", ".join(facts.file.path for facts in unread[:3])
            more = f" and {len(unread) - 3} more" if len(unread) > 3 else ""
            yield RULE.not_supported(f"not read whole: {names}{more}")
        else:
            yield RULE.not_detected(f"{len(files)} files, each read as far as needed")


def _not_looked_at(facts: FileFacts) -> Iterator[NotLookedAt]:
    for incomplete, found in ((True, facts.unread), (False, facts.skipped)):
        for fact in found:
            what = f"{facts.file.path} › {fact.member}" if fact.member else facts.file.path
            yield NotLookedAt(what=what, reason=fact.message, incomplete=incomplete)
