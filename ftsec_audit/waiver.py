"""A finding that a person accepted: which rule, of which artifacts, until when, and why."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import date
from fnmatch import fnmatchcase
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from ftsec_audit.types import ArtifactCard, Evidence, Finding

RulePrefix = Annotated[str, Field(pattern=r"^FTA\d{1,3}$", description="A rule id or the beginning of one.")]


class Waiver(BaseModel):
    """One accepted finding."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    id: RulePrefix
    artifact: str = Field(default="*", description="Glob on the reference as given or as resolved.")
    paths: tuple[str, ...] = Field(
        default=(), description="Globs; every piece of evidence must lie in a file that one of them names."
    )
    expired_at: date | None = Field(default=None, description="From this day on the entry has no effect.")
    statement: str = Field(min_length=1, description="Who accepted it, and why.")

    def matches(self, finding: Finding, artifact: ArtifactCard) -> bool:
        return (
            finding.rule.startswith(self.id)
            and any(fnmatchcase(name, self.artifact) for name in (artifact.reference, artifact.resolved))
            and (not self.paths or (bool(finding.evidence) and all(map(self._covers, finding.evidence))))
        )

    def holds(self, today: date) -> bool:
        return self.expired_at is None or self.expired_at > today

    def _covers(self, evidence: Evidence) -> bool:
        file = evidence.location.file
        return bool(file) and any(fnmatchcase(file, pattern) for pattern in self.paths)


class ExpiringWaiver(Waiver):
    """One accepted finding, with the day on which somebody has to look again."""

    expired_at: date = Field(description="From this day on the waiver has no effect.")


def numbered(waivers: Iterable[Waiver], name: str) -> Iterator[tuple[str, Waiver]]:
    """Each waiver with its place in the file it stands in: `waivers[0]`."""
    return ((f"{name}[{number}]", waiver) for number, waiver in enumerate(waivers))
