"""Processes that crash, hang, swell or vanish cost their own artifact and nothing else."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from builders.batch_work import ToldWork, job

from ftsec_audit.batch.job import Done, FailureKind, Job
from ftsec_audit.batch.pool import LocalPool
from ftsec_audit.batch.schedule import Schedule
from ftsec_audit.errors import FtsecError


@pytest.fixture
def work(tmp_path: Path) -> ToldWork:
    return ToldWork(store=str(tmp_path / "store"), log=tmp_path / "log")


def run(pool: LocalPool, work: ToldWork, jobs: list[Job]) -> dict[str, Done]:
    pool.start(work, len(jobs))
    try:
        done = list(pool.results(Schedule(jobs)))
    finally:
        pool.stop()
    assert len(done) == len(jobs)
    return {each.job.reference: each for each in done}


def pids(work: ToldWork) -> list[int]:
    return [int(line.split()[0]) for line in work.log.read_text().splitlines()]


def test_every_job_comes_back_once_from_the_workers_asked_for(work: ToldWork) -> None:
    done = run(LocalPool(2), work, [job(f"ok:{n}", n) for n in range(12)])
    assert all(each.failure is None and each.row is not None for each in done.values())
    assert len(set(pids(work))) <= 2
    assert len(pids(work)) == 12


def test_a_lost_worker_costs_its_job_alone(work: ToldWork) -> None:
    jobs = [job(name, n) for n, name in enumerate(("ok:1", "exit", "ok:2", "kill", "ok:3", "ok:4"))]
    done = run(LocalPool(2), work, jobs)
    failures = {name: each.failure for name, each in done.items() if each.failure}
    assert set(failures) == {"exit", "kill"}
    assert failures["exit"].kind is FailureKind.CRASH
    assert "exit code 7" in failures["exit"].reason
    assert "SIGKILL" in failures["kill"].reason


def test_a_hanging_artifact_is_ended_after_its_time(work: ToldWork) -> None:
    started = time.monotonic()
    done = run(LocalPool(2, max_seconds=1.0), work, [job("hang", 1), job("ok:1", 2), job("ok:2", 3)])
    assert done["hang"].failure is not None
    assert done["hang"].failure.kind is FailureKind.TIMEOUT
    assert done["hang"].seconds >= 1.0
    assert done["ok:1"].failure is done["ok:2"].failure is None
    assert time.monotonic() - started < 60


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is watched through /proc")
def test_a_swelling_worker_is_ended_at_its_limit(work: ToldWork) -> None:
    done = run(LocalPool(1, max_memory=250 << 20), work, [job("swell", 1), job("ok:1", 2)])
    assert done["swell"].failure is not None
    assert done["swell"].failure.kind is FailureKind.MEMORY
    assert done["ok:1"].failure is None


def test_jobs_are_taken_no_sooner_than_a_worker_is_free(work: ToldWork) -> None:
    schedule = Schedule([job(f"ok:{number}", number) for number in range(20)])
    pool = LocalPool(2)
    pool.start(work, 20)
    try:
        for finished, _ in enumerate(pool.results(schedule), start=1):
            assert 20 - len(schedule) <= finished + 2
    finally:
        pool.stop()
    assert not schedule


def test_workers_that_never_start_are_an_error_and_not_a_loop(work: ToldWork) -> None:
    broken = ToldWork(store=work.store, log=work.log, prepared=False)
    with pytest.raises(FtsecError, match=r"workers do not start.*exit code 9"):
        run(LocalPool(1), broken, [job("ok:1", 1)])


def test_stopping_ends_a_worker_in_the_middle_of_its_job(work: ToldWork) -> None:
    pool = LocalPool(2)
    pool.start(work, 2)
    first = next(pool.results(Schedule([job("hang", 1), job("ok", 2)])))
    assert first.job.reference == "ok"  # so the other worker has been given "hang" before
    deadline = time.monotonic() + 30
    while "hang" not in work.log.read_text() and time.monotonic() < deadline:
        time.sleep(0.01)
    running = pids(work)
    pool.stop()
    assert len(running) == 2
    for pid in running:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, signal.SIG_DFL)
