"""From the facts of the file survey to findings: one per rule and file, the worst fact first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from ftsec_audit.contracts import Subject
from ftsec_audit.formats.facts import Fact, FileFacts
from ftsec_audit.formats.survey import survey
from ftsec_audit.formats.walk import SurveyLimits
from ftsec_audit.types import Confidence, Evidence, Finding, Location, Observation, Rule

_SHOWN = 12
"""Pieces of evidence in one finding; the summary counts all."""


def answer(
    rule: Rule,
    subject: Subject,
    limits: SurveyLimits,
    select: Callable[[FileFacts], Sequence[Fact]],
    *,
    asked_of: Callable[[FileFacts], bool] = lambda _: True,
    clean: str,
    absent: str = "",
) -> Iterator[Observation]:
    """One detection per file for which `select` gives facts, or the reason why there is none.

    `asked_of` tells which files the rule is about; without any the rule is not applicable (`absent`).
    """
    asked, flagged = 0, False
    for facts in survey(subject.artifact, limits).files:
        found = select(facts)
        asked += bool(found) or asked_of(facts)
        if found:
            flagged = True
            yield finding(rule, facts.file.path, found)
    if not flagged and absent and not asked:
        yield rule.not_applicable(absent)
    elif not flagged:
        yield rule.not_detected(clean.format(n=asked))


def finding(rule: Rule, path: str, found: Sequence[Fact]) -> Finding:
    """The consolidated detection for one file."""
    ordered = sorted(found, key=lambda fact: -fact.severity.level)
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    return rule.detected(
        f"{path}: {ordered[0].message}{more}",
        confidence=Confidence.HIGH,
        severity=ordered[0].severity,
        evidence=[evidence(path, fact) for fact in ordered[:_SHOWN]],
    )


def evidence(path: str, fact: Fact) -> Evidence:
    details: dict[str, object] = {"code": fact.code}
    if fact.member:
        details["member"] = fact.member
    return Evidence(
        message=fact.message,
        location=Location(file=path, offset=fact.offset),
        excerpt=fact.excerpt,
        details=details,
    )
