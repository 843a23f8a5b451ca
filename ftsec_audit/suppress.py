"""Findings that a person has accepted: by an ignore file, or because an earlier report had them.

Only detections can be set aside, never missing answers. What is set aside stays in the report with the
statement that justified it; an entry that has expired stops working and is listed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from ftsec_audit import user_yaml
from ftsec_audit.policy import RulePrefix
from ftsec_audit.types import ArtifactCard, Evidence, Finding, Outcome, Suppressed


class Entry(BaseModel):
    """One accepted finding."""

    model_config = ConfigDict(extra="forbid", frozen=True)

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

    def _covers(self, evidence: Evidence) -> bool:
        file = evidence.location.file
        return bool(file) and any(fnmatchcase(file, pattern) for pattern in self.paths)


class IgnoreFile(BaseModel):
    """Findings accepted by a person."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1]
    ignore: tuple[Entry, ...] = ()

    @classmethod
    def load(cls, path: Path) -> IgnoreFile:
        return user_yaml.load(path, cls)


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """The detections of earlier reports.

    A detection is the same when rule, places and the artifact's digest are: in changed bytes the same
    rule at the same place is a new finding.
    """

    name: str
    known: frozenset[tuple[object, ...]]

    @classmethod
    def load(cls, path: Path) -> Baseline:
        """From a JSON report, or JSON lines of several; raises UsageError when it is neither."""
        from ftsec_audit import stored_reports

        known = {
            _key(finding, report.artifact)
            for report in stored_reports.load(path)
            for finding in report.detected()
        }
        return cls(name=path.name, known=frozenset(known))

    def matches(self, finding: Finding, artifact: ArtifactCard) -> bool:
        return bool(artifact.digest) and _key(finding, artifact) in self.known


def _key(finding: Finding, artifact: ArtifactCard) -> tuple[object, ...]:
    places = ((e.location.file, e.location.tensor, e.location.offset) for e in finding.evidence)
    return artifact.digest, finding.rule, frozenset(places)


@dataclass(frozen=True, kw_only=True)
class Sifted:
    """Findings that stand, findings set aside, and the entries that no longer count."""

    findings: tuple[Finding, ...]
    suppressed: tuple[Suppressed, ...]
    expired: tuple[str, ...]


def sift(
    findings: Iterable[Finding],
    artifact: ArtifactCard,
    *,
    ignore: IgnoreFile | None = None,
    baseline: Baseline | None = None,
    today: date,
) -> Sifted:
    """Separate the findings that were accepted from those that stand."""
    entries = ignore.ignore if ignore else ()
    live = [entry for entry in entries if entry.expired_at is None or entry.expired_at > today]
    standing: list[Finding] = []
    suppressed: list[Suppressed] = []
    for finding in findings:
        statement = _statement(finding, artifact, live, baseline)
        if statement is None:
            standing.append(finding)
        else:
            suppressed.append(Suppressed(finding=finding, statement=statement))
    expired = tuple(
        f"ignore entry {entry.id} ({entry.statement}) expired on {entry.expired_at}"
        for entry in entries
        if entry not in live
    )
    return Sifted(findings=tuple(standing), suppressed=tuple(suppressed), expired=expired)


def _statement(
    finding: Finding, artifact: ArtifactCard, entries: list[Entry], baseline: Baseline | None
) -> str | None:
    if finding.outcome is not Outcome.DETECTED:
        return None
    for entry in entries:
        if entry.matches(finding, artifact):
            return entry.statement
    if baseline is not None and baseline.matches(finding, artifact):
        return f"in baseline {baseline.name}"
    return None
