"""Batches, plans and lists of results as text; strings of artifacts are made harmless for each format."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

from ftsec_audit.batch.costs import Costs
from ftsec_audit.batch.job import Job, Row
from ftsec_audit.batch.plan import BatchPlan
from ftsec_audit.batch.summary import Summary, clock
from ftsec_audit.report.escape import visible
from ftsec_audit.report.markdown import code, plain
from ftsec_audit.report.phrases import PASS_MEANS
from ftsec_audit.types import Verdict

FORMATS = ("table", "json", "html", "markdown")
_WIDTH, _LONGEST = 60, 300


def render(summary: Summary, format: str) -> str:
    """`table`, `json`, `html` or `markdown`."""
    if format == "json":
        return json.dumps(summary.document(), indent=2) + "\n"
    if format == "html":
        return _html(summary)
    lines = _markdown(summary) if format == "markdown" else _table(summary)
    return "\n".join(lines) + "\n"


def listing(rows: Iterable[Row]) -> Iterator[str]:
    """One line for each stored document."""
    for row in rows:
        yield _line(row.verdict, row)


def describe(plan: BatchPlan, *, finished: frozenset[str], costs: Costs, workers: int | None) -> str:
    """What a batch would do, and about how long that takes; `finished` are keys."""
    left = [job for job in plan.jobs if job.key not in finished]
    lines = [
        f"{plan.references:,} references: {len(plan.jobs):,} artifacts of {plan.bytes:,} bytes, "
        f"{plan.duplicates:,} duplicates, {len(plan.unresolved):,} that cannot be had",
        f"{len(plan.jobs) - len(left):,} are finished, {len(left):,} to be scanned",
        *_estimate(left, costs, workers),
        f"{len(plan.bases):,} bases of {sum(plan.bases.values()):,} bytes, read as needed",
    ]
    for base, size in sorted(plan.bases.items()):
        jobs = sum(job.base == base for job in plan.jobs)
        lines.append(f"  {jobs:>7,} × {visible(base, _WIDTH)}  ({size:,} bytes)")
    without = sum(not job.base for job in plan.jobs)
    if without:
        lines.append(f"  {without:>7,} × no base")
    lines += [f"  {visible(one.reference, _WIDTH)}: {visible(one.reason)}" for one in plan.unresolved[:20]]
    return "\n".join(lines) + "\n"


def _estimate(left: list[Job], costs: Costs, workers: int | None) -> Iterator[str]:
    if not left:
        return
    loads = sum({job.base: costs.load(job) for job in left}.values())
    seconds = sum(map(costs.scan, left)) + loads
    source = (
        f"from {costs.recorded:,} scans in the store" if costs.recorded else "assumed, no scan is recorded"
    )
    share = f", {clock(seconds / workers)} on {workers:,} workers" if workers else ""
    yield f"about {clock(seconds)} of one worker{share} ({source})"


def _html(summary: Summary) -> str:
    from ftsec_audit.report.html import page

    worst = [
        {
            "verdict": verdict,
            "reference": row.reference[:_LONGEST],
            "suspicion": row.suspicion,
            "why": _why(row)[:_LONGEST],
        }
        for verdict, row in summary.worst
    ]
    return page("batch.html", headline=_counts(summary), effort=_effort(summary), worst=worst)


def _table(summary: Summary) -> Iterator[str]:
    yield _counts(summary)
    yield _effort(summary)
    for verdict, row in summary.worst:
        yield "  " + _line(verdict, row)
    yield f"  {PASS_MEANS}"


def _markdown(summary: Summary) -> Iterator[str]:
    yield "## ftsec-audit: batch"
    yield ""
    yield _counts(summary)
    yield ""
    yield _effort(summary)
    yield ""
    if summary.worst:
        yield "| verdict | artifact | suspicion | rules, or why there is no report |"
        yield "|---|---|---|---|"
    for verdict, row in summary.worst:
        suspicion = "" if row.suspicion is None else f"{row.suspicion:.3f}"
        why = plain(_why(row).replace("\n", " "))
        yield f"| {verdict or '–'} | {code(visible(row.reference, 100))} | {suspicion} | {why} |"
    yield ""
    yield PASS_MEANS


def _counts(summary: Summary) -> str:
    verdicts = " · ".join(f"{summary.verdicts[verdict]:,} {verdict}" for verdict in Verdict)
    failures = ", ".join(f"{n:,} {kind}" for kind, n in sorted(summary.failures.items()))
    failed = f"{summary.failures.total():,} without a report" + (f" ({failures})" if failures else "")
    left = f" · {summary.remaining:,} not reached" if summary.remaining else ""
    return f"{verdicts} · {failed}{left}"


def _effort(summary: Summary) -> str:
    plan = summary.plan
    stopped = " · interrupted" if summary.interrupted else ""
    if summary.triaged is not None:
        stopped = f" · {summary.triaged:,} asked everything after triage{stopped}"
    return (
        f"{plan.references:,} references, {len(plan.jobs):,} artifacts, {plan.duplicates:,} duplicates, "
        f"{summary.finished_before:,} finished before · {summary.seconds:,.1f} s{stopped}"
    )


def _line(verdict: Verdict | None, row: Row) -> str:
    suspicion = "     " if row.suspicion is None else f"{row.suspicion:.3f}"
    name = visible(row.reference, _WIDTH)
    return (
        f"{(verdict or '–').upper():<12}  {suspicion}  {name:<{_WIDTH}}  {visible(_why(row), 120)}".rstrip()
    )


def _why(row: Row) -> str:
    if row.failure:
        return f"{row.failure}: {row.reason}"
    return ", ".join(sorted({detected.rule for detected in row.detected}))
