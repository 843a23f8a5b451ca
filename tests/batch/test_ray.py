"""The cluster executor on a real Ray of this machine: the laws of executors, and the same documents."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from builders.batch_work import ToldWork, job

from ftsec_audit.batch.job import Done, FailureKind, Job
from ftsec_audit.batch.ray import RayExecutor
from ftsec_audit.batch.schedule import Schedule
from ftsec_audit.errors import FtsecError

ray = pytest.importorskip("ray")
TESTS = Path(__file__).parents[1]


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """One Ray with two cores for all tests of this file."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    paths = os.pathsep.join([str(TESTS), str(TESTS.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    ray.init(
        "local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        runtime_env={"env_vars": {"PYTHONPATH": paths}},
    )
    yield
    ray.shutdown()


@pytest.fixture
def work(tmp_path: Path) -> ToldWork:
    return ToldWork(store=str(tmp_path / "store"), log=tmp_path / "log")


def run(executor: RayExecutor, work: ToldWork, jobs: list[Job]) -> dict[str, Done]:
    executor.start(work, len(jobs))
    try:
        done = list(executor.results(Schedule(jobs)))
    finally:
        executor.stop()
    assert len(done) == len(jobs)
    return {each.job.reference: each for each in done}


def test_every_job_comes_back_once_and_a_lost_actor_costs_its_job_alone(work: ToldWork) -> None:
    fine = [f"ok:{number}" for number in range(6)]
    jobs = [job(name, n) for n, name in enumerate(["hang", "exit", *fine, "swell", "store-and-die"])]
    done = run(RayExecutor(2, max_seconds=15.0, max_memory=400 << 20), work, jobs)
    lost = {name: each.failure.kind for name, each in done.items() if each.failure}
    assert lost == {
        "hang": FailureKind.TIMEOUT,
        "exit": FailureKind.CRASH,
        "swell": FailureKind.MEMORY,
        "store-and-die": FailureKind.CRASH,
    }
    tries = Counter(line.split()[1] for line in work.log.read_text().splitlines())
    assert tries["exit"] == 2  # once more elsewhere: the node might have been the cause
    assert tries["hang"] == tries["swell"] == 1
    assert all(tries[name] == 1 for name in fine)
    assert ray.is_initialized()  # it was not this executor that started it


def test_actors_that_never_start_are_an_error_and_not_a_loop(work: ToldWork) -> None:
    broken = ToldWork(store=work.store, log=work.log, prepared=False)
    with pytest.raises(FtsecError, match="workers do not start"):
        run(RayExecutor(1), broken, [job("ok:1", 1)])


def test_without_ray_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch, work: ToldWork) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(FtsecError, match=r"needs Ray.*ftsec-audit\[ray\]"):
        RayExecutor().start(work, 1)
