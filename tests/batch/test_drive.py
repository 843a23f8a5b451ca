"""A run keeps what is finished, tells what failed, and goes on where another one ended."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from builders import reports
from builders.batch_driver import Inline, batch
from builders.batch_work import ToldWork, job

from ftsec_audit.batch.events import Observer
from ftsec_audit.batch.job import Done, Failure, FailureKind
from ftsec_audit.batch.plan import BatchPlan, Unresolved
from ftsec_audit.batch.record import Record
from ftsec_audit.batch.schedule import Schedule
from ftsec_audit.batch.store import Store
from ftsec_audit.batch.summary import Summary
from ftsec_audit.errors import FtsecError
from ftsec_audit.policy import Triage
from ftsec_audit.types import Verdict


class Failing(Inline):
    """Loses every job whose reference says so."""

    def __init__(self, kind: FailureKind = FailureKind.CRASH, *, stored: bool = False) -> None:
        self.kind, self.stored = kind, stored

    def results(self, schedule: Schedule) -> Iterator[Done]:
        for each in schedule:
            if each.reference != "lost":
                yield self.work(each)
                continue
            if self.stored:
                self.work(each)
            yield Done(job=each, failure=Failure(kind=self.kind, reason="so it goes"), seconds=0.5)


def scanned(folder: Path) -> list[str]:
    log = folder / "log"
    return [line.split()[1] for line in log.read_text().splitlines()] if log.exists() else []


def test_a_second_run_finds_everything_done(tmp_path: Path) -> None:
    first = batch(tmp_path, ["a", "b", "c"]).run()
    again = batch(tmp_path, ["a", "b", "c", "d"]).run()
    assert scanned(tmp_path) == ["a", "b", "c", "d"]
    assert first.verdicts[Verdict.PASS] == 3
    assert again.verdicts[Verdict.PASS] == 4
    assert (first.finished_before, again.finished_before) == (0, 3)
    assert first.remaining == again.remaining == 0


def test_a_failure_is_stored_with_its_reason_and_tried_again(tmp_path: Path) -> None:
    summary = batch(tmp_path, ["a", "lost"], executor=Failing()).run()
    assert summary.failures == {"crash": 1}
    store = batch(tmp_path, []).store
    record = store.get(f"{job('lost', 2).key}.failed-1")
    assert record is not None
    assert record.failure == Failure(kind=FailureKind.CRASH, reason="so it goes")
    assert record.seconds == 0.5
    left_alone = batch(tmp_path, ["a", "lost"], retry=False).run()
    assert (left_alone.failures, left_alone.finished_before) == ({"crash": 1}, 2)
    batch(tmp_path, ["a", "lost"], executor=Failing(FailureKind.TIMEOUT)).run()
    retried = batch(tmp_path, ["a", "lost"]).run()
    assert retried.failures == {}
    assert retried.verdicts[Verdict.PASS] == 2
    assert sorted(store.names()) == sorted(
        [job("", 1).key, job("", 2).key, f"{job('', 2).key}.failed-1", f"{job('', 2).key}.failed-2"]
    )


def test_a_worker_lost_after_it_stored_has_not_failed(tmp_path: Path) -> None:
    summary = batch(tmp_path, ["lost"], executor=Failing(stored=True)).run()
    assert summary.verdicts[Verdict.PASS] == 1
    assert not summary.failures


@pytest.mark.parametrize("content", [b"", b"{", b'{"format": 9}', b"[" * 100_000])
def test_a_damaged_document_is_scanned_anew(tmp_path: Path, content: bytes) -> None:
    batch(tmp_path, ["a", "b"]).run()
    key = job("", 1).key
    (tmp_path / "store" / key[:2] / f"{key}.json").write_bytes(content)
    assert batch(tmp_path, ["a", "b"]).run().verdicts[Verdict.PASS] == 2
    assert scanned(tmp_path) == ["a", "b", "a"]


def test_what_could_not_be_resolved_is_a_failure_of_its_own(tmp_path: Path) -> None:
    missing = Unresolved(key="f" * 64, reference="org/none", reason="no such repository")
    plan = BatchPlan(jobs=(job("a", 1),), unresolved=(missing,), references=2)
    summary = batch(tmp_path, [], plan=plan).run()
    assert summary.failures == {"source": 1}
    assert summary.worst[0][1].reason == "no such repository"
    assert summary.done == summary.planned == 2


def test_a_store_that_cannot_be_written_ends_the_run_and_loses_nothing(tmp_path: Path) -> None:
    with pytest.raises(FtsecError, match=r"so it goes.*make room"):
        batch(tmp_path, ["a", "lost", "b"], executor=Failing(FailureKind.STORE)).run()
    assert batch(tmp_path, ["a", "lost", "b"]).run().finished_before == 1
    assert scanned(tmp_path) == ["a", "lost", "b"]


def test_an_interrupt_keeps_what_is_finished(tmp_path: Path) -> None:
    class Interrupted(Inline):
        def results(self, schedule: Schedule) -> Iterator[Done]:
            yield self.work(next(iter(schedule)))
            raise KeyboardInterrupt

    summary = batch(tmp_path, ["a", "b", "c"], executor=Interrupted()).run()
    assert summary.interrupted
    assert (summary.done, summary.remaining) == (1, 2)
    assert batch(tmp_path, ["a", "b", "c"]).run().finished_before == 1


def test_events_tell_the_whole_story_one_object_per_line(tmp_path: Path) -> None:
    events = io.StringIO()
    batch(tmp_path, ["a", "lost"], executor=Failing(), observer=Observer(events=events)).run()
    told = [json.loads(line) for line in events.getvalue().splitlines()]
    assert [event["event"] for event in told] == ["planned", "done", "failed", "finished"]
    assert told[2]["reason"] == "so it goes"
    assert told[3]["verdicts"] == {"pass": 1, "fail": 0, "inconclusive": 0}


def test_a_record_survives_being_stored(tmp_path: Path) -> None:
    for report in (reports.passing(), reports.failing(), reports.inconclusive()):
        record = Record(key="a" * 64, reference="x", report=report, size=3, seconds=1.5, memory=7)
        assert Record.parse(record.render()).row() == record.row()
        assert record.row().verdict is report.verdict


def test_a_triage_leaves_to_a_second_batch_what_the_first_does_not_pass(tmp_path: Path) -> None:
    events = io.StringIO()
    asked = {"triage": Triage(), "observer": Observer(events=events)}
    first = batch(tmp_path, ["ok:1", "bad:1", "lost", "ok:2"], executor=Failing(), **asked).run()
    assert [each.reference for each in first.passed_on] == ["bad:1"]
    assert (first.verdicts[Verdict.PASS], first.failures.total(), first.remaining) == (2, 1, 0)
    told = [json.loads(line)["event"] for line in events.getvalue().splitlines()]
    assert sorted(told) == ["done", "done", "failed", "finished", "planned", "triaged"]
    deeper = batch(tmp_path, [], plan=BatchPlan(jobs=(job("bad:everything", 9),), references=1)).run()
    whole = first.followed_by(deeper)
    assert (whole.verdicts[Verdict.FAIL], whole.triaged, whole.done, whole.planned) == (1, 1, 4, 4)
    assert {row.reference for _, row in whole.worst} == {"bad:everything", "lost"}
    undone = first.followed_by(Summary(plan=BatchPlan(jobs=tuple(first.passed_on))))
    assert undone.remaining == 1


def test_a_store_may_lie_wherever_fsspec_reaches(tmp_path: Path) -> None:
    url = f"memory://{tmp_path.name}"
    here = {"store": Store(url), "work": ToldWork(store=url, log=tmp_path / "log")}
    assert batch(tmp_path, ["a", "b"], **here).run().done == 2
    again = batch(tmp_path, ["a", "b", "c"], **here).run()
    assert (again.finished_before, again.done) == (2, 3)
    assert scanned(tmp_path) == ["a", "b", "c"]
    assert len(list(Store(url).names())) == 3
    failed = batch(
        tmp_path, ["lost"], executor=Failing(), **here | {"plan": BatchPlan(jobs=(job("lost", 8),))}
    )
    failed.run()
    assert Store(url).failures(job("", 8).key) == 1
