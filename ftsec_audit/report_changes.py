"""What a later report says that an earlier one did not: for two scans of one model, or of two revisions."""

from __future__ import annotations

from dataclasses import dataclass

from ftsec_audit.types import Finding, Report


@dataclass(frozen=True, kw_only=True)
class ReportChanges:
    """Two reports, compared by rule and by what their findings say."""

    old: str
    new: str
    old_verdict: str
    new_verdict: str
    appeared: tuple[Finding, ...]
    """Detections of the new report that the old one does not have."""
    disappeared: tuple[Finding, ...]
    reworded: tuple[tuple[Finding, Finding], ...]
    """The same rule detects in both, with another severity, confidence or summary."""
    other_answers: tuple[tuple[Finding, Finding], ...]
    """Rules whose outcome changed without a detection on either side."""


def changes(old: Report, new: Report) -> ReportChanges:
    """Findings are matched by their rule; several of one rule by their order in the report."""
    before, after = _by_place(old), _by_place(new)
    detected_before = {place for place in before if before[place] in old.detected()}
    detected_after = {place for place in after if after[place] in new.detected()}
    both = sorted(detected_before & detected_after)
    answered = sorted((before.keys() & after.keys()) - detected_before - detected_after)
    return ReportChanges(
        old=old.artifact.resolved,
        new=new.artifact.resolved,
        old_verdict=str(old.verdict),
        new_verdict=str(new.verdict),
        appeared=tuple(after[place] for place in sorted(detected_after - detected_before)),
        disappeared=tuple(before[place] for place in sorted(detected_before - detected_after)),
        reworded=tuple((before[p], after[p]) for p in both if _said(before[p]) != _said(after[p])),
        other_answers=tuple(
            (before[p], after[p]) for p in answered if before[p].outcome is not after[p].outcome
        ),
    )


def _by_place(report: Report) -> dict[tuple[str, int], Finding]:
    places: dict[tuple[str, int], Finding] = {}
    for finding in report.findings:
        number = sum(rule == finding.rule for rule, _ in places)
        places[finding.rule, number] = finding
    return places


def _said(finding: Finding) -> tuple[object, ...]:
    return finding.severity, finding.confidence, finding.summary
