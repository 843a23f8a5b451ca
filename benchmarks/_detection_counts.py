"""What the tables of `detection.py` count: who fails, because of what, and the share of how many jobs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ftsec_audit.types import Confidence, Outcome, Severity, Verdict
from ftsec_audit.validate import curves
from ftsec_audit.validate.records import Record

STRUCTURE = (
    "FTA101",
    "FTA102",
    "FTA105",
    "FTA106",
    "FTA109",
    "FTA204",
    "FTA301",
    "FTA302",
    "FTA411",
    "FTA412",
    "FTA413",
)
"""Rules that state a fact about files or tensors, which is as true of a twin that has it as of the attack."""

TRIGGERED = ("FTA501", "FTA504", "FTA507", "FTA508", "FTA509", "FTA510", "FTA601")
"""Rules that name a trigger on fresh prompts, and what it brings out or takes away."""


def fails(one: Record) -> bool:
    return one.verdict is Verdict.FAIL


def grave(one: Record) -> list[str]:
    """The rules because of which the default policy fails it."""
    return sorted(
        finding.rule
        for finding in one.findings
        if finding.outcome is Outcome.DETECTED
        and finding.severity >= Severity.HIGH
        and finding.confidence >= Confidence.MEDIUM
    )


def confirmed(one: Record) -> bool:
    """One of them fails the sample: what it names at LOW confidence is confirmed by nothing."""
    return any(rule in TRIGGERED for rule in grave(one))


def share(found: Sequence[Record], holds: Callable[[Record], bool]) -> str:
    """`hits/n [interval]`, the interval by jobs."""
    if not found:
        return "–"
    hits = [holds(one) for one in found]
    low, high = curves.share_interval(hits, [one.sample.job for one in found])
    return f"{sum(hits)}/{len(hits)} [{low:.2f}, {high:.2f}]"


def counted(found: Sequence[Record]) -> str:
    return f"{len(found)} ({len({one.sample.job for one in found})})"


def count(rows: Sequence[dict[str, str]], holds: Callable[[dict[str, str]], bool]) -> str:
    hits = sum(map(holds, rows))
    low, high = curves.wilson(hits, len(rows))
    return f"{hits}/{len(rows)} [{low:.2f}, {high:.2f}]" if rows else "–"
