"""A driver to be killed: `python -m builders.batch_driver FOLDER REFERENCE…` runs a batch of told work.

On Ray where RAY_ADDRESS names one, or OWN_RAY is set and the driver shall start one; else in the local pool.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from builders.batch_work import ToldWork, job

from ftsec_audit.batch.drive import Batch
from ftsec_audit.batch.events import Observer
from ftsec_audit.batch.executor import Executor, Work
from ftsec_audit.batch.job import Done
from ftsec_audit.batch.plan import BatchPlan
from ftsec_audit.batch.pool import LocalPool
from ftsec_audit.batch.ray import RayExecutor
from ftsec_audit.batch.schedule import Schedule
from ftsec_audit.batch.store import Store


@dataclass
class Inline(Executor):
    """Does the work in this very process, one job after the other."""

    def start(self, work: Work, most: int) -> None:
        self.work = work

    def results(self, schedule: Schedule) -> Iterator[Done]:
        return (self.work(each) for each in schedule)

    def stop(self) -> None:
        return


def batch(folder: Path, references: Iterable[str], **settings: object) -> Batch:
    """A batch of told work below `folder`, done inline unless an executor is given."""
    jobs = tuple(job(reference, number) for number, reference in enumerate(references, start=1))
    store = folder / "store"
    arguments = {
        "plan": BatchPlan(jobs=jobs, references=len(jobs)),
        "store": Store(str(store)),
        "work": ToldWork(store=str(store), log=folder / "log"),
        "executor": Inline(),
    }
    return Batch(**arguments | settings)  # type: ignore[arg-type]


if __name__ == "__main__":
    home = Path(sys.argv[1])
    with (home / "events.jsonl").open("a") as events:
        executor = RayExecutor(2) if {"RAY_ADDRESS", "OWN_RAY"} & os.environ.keys() else LocalPool(2)
        batch(home, sys.argv[2:], executor=executor, observer=Observer(events=events)).run()
