"""Findings that a person has accepted: by the policy, by an ignore file, or in an earlier report.

Only detections can be set aside, never missing answers. What is set aside stays in the report with the
statement that justified it; an entry that has expired stops working and is listed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Literal

from ftsec_audit import user_yaml
from ftsec_audit.types import ArtifactCard, Finding, Outcome, Suppressed
from ftsec_audit.waiver import Waiver, numbered


@dataclass(frozen=True, kw_only=True)
class IgnoreFile(user_yaml.Part):
    """Findings accepted by a person."""

    version: Literal[1]
    ignore: tuple[Waiver, ...] = ()

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
    waivers: Sequence[Waiver] = (),
    ignore: IgnoreFile | None = None,
    baseline: Baseline | None = None,
    today: date,
) -> Sifted:
    """Separate the findings that were accepted from those that stand; `waivers` are those of the policy."""
    entries = [*numbered(waivers, "waivers"), *numbered(ignore.ignore if ignore else (), "ignore")]
    live = [(name, entry) for name, entry in entries if entry.holds(today)]
    standing: list[Finding] = []
    suppressed: list[Suppressed] = []
    for finding in findings:
        accepted = _accepted(finding, artifact, live, baseline)
        if accepted is None:
            standing.append(finding)
        else:
            suppressed.append(accepted)
    expired = tuple(
        f"{name}: {entry.id} ({entry.statement}) expired on {entry.expired_at}"
        for name, entry in entries
        if not entry.holds(today)
    )
    return Sifted(findings=tuple(standing), suppressed=tuple(suppressed), expired=expired)


def _accepted(
    finding: Finding,
    artifact: ArtifactCard,
    entries: Iterable[tuple[str, Waiver]],
    baseline: Baseline | None,
) -> Suppressed | None:
    if finding.outcome is not Outcome.DETECTED:
        return None
    for name, entry in entries:
        if entry.matches(finding, artifact):
            return Suppressed(finding=finding, statement=entry.statement, by=name)
    if baseline is not None and baseline.matches(finding, artifact):
        return Suppressed(finding=finding, statement=f"in baseline {baseline.name}", by="baseline")
    return None
