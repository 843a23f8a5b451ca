"""What is shown of a batch: complete, bounded, and inert whatever artifacts are called."""

from __future__ import annotations

import json
import re

import pytest
from builders import reports
from builders.batch_work import job

from ftsec_audit.batch.costs import Costs
from ftsec_audit.batch.job import Done, Failure, FailureKind
from ftsec_audit.batch.plan import BatchPlan
from ftsec_audit.batch.record import Record
from ftsec_audit.batch.summaries import FORMATS, describe, render
from ftsec_audit.batch.summary import Summary, clock

HOSTILE = "org/<script>alert(1)</script>|\x1b[31m\u202e\n# title"


def summary(*records: Record, planned: int | None = None) -> Summary:
    jobs = tuple(job(record.reference, number) for number, record in enumerate(records))
    filled = Summary(plan=BatchPlan(jobs=jobs, references=planned or len(jobs)))
    for each, record in zip(jobs, records, strict=True):
        verdict = record.report.verdict if record.report else None
        filled.add(Done(job=each, row=record.row(), verdict=verdict))
    return filled


FAILURE = Failure(kind=FailureKind.CRASH, reason=HOSTILE)


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_names_what_failed_and_nothing_of_it_runs(format: str) -> None:
    text = render(
        summary(
            Record(key="a" * 64, reference=HOSTILE, report=reports.failing()),
            Record(key="b" * 64, reference="org/lost", failure=FAILURE, attempt=1),
            Record(key="c" * 64, reference="org/good", report=reports.passing()),
        ),
        format,
    )
    assert "org/lost" in text
    assert "\x1b" not in text and "\u202e" not in text
    if format == "json":
        assert json.loads(text)["worst"][0]["reference"] == HOSTILE
    else:
        assert "1 pass" in text and "1 fail" in text
        assert "risk is zero" in text
    if format == "html":
        assert "<script" not in text
        assert not re.search(r"(?:src|href)\s*=", text)
        assert "default-src 'none'" in text


def test_the_list_of_the_worst_is_bounded() -> None:
    many = [Record(key=f"{n:064x}", reference=f"org/{n}", report=reports.failing()) for n in range(200)]
    assert len(summary(*many).document()["worst"]) == 50  # type: ignore[arg-type]


def test_the_figures_tell_done_failed_rate_and_remaining_time() -> None:
    half = summary(Record(key="a" * 64, reference="x", report=reports.passing()))
    half.plan = BatchPlan(jobs=(*half.plan.jobs, job("y", 9)), references=2)
    figures = half.figures()
    assert figures["done"] == "1 of 2"
    assert figures["pass"] == "1" and figures["no report"] == "0"
    assert figures["time left"]
    assert [clock(s) for s in (7, 200, 7500)] == ["7 s", "3 min 20 s", "2 h 5 min"]


def test_a_plan_says_how_long_it_takes_and_how_it_knows() -> None:
    plan = BatchPlan(jobs=(job("a", 1), job("b", 2), job("c", 3)), references=3)
    done = frozenset({plan.jobs[0].key})
    text = describe(plan, finished=done, costs=Costs(fixed=60.0), workers=2)
    assert "1 are finished, 2 to be scanned" in text
    assert "about 2 min 0 s of one worker, 1 min 0 s on 2 workers (assumed" in text
    recorded = Costs(fixed=60.0, recorded=50)
    assert "from 50 scans" in describe(plan, finished=done, costs=recorded, workers=None)
    everything = frozenset(job.key for job in plan.jobs)
    assert "about" not in describe(plan, finished=everything, costs=recorded, workers=2)
