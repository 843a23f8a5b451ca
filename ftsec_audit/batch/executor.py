"""The contract between a batch and whatever runs its jobs: processes here, a cluster elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from ftsec_audit.batch.job import Done, Job
from ftsec_audit.batch.schedule import Schedule


class Work(Protocol):
    """Scans one job and stores its document. Can be pickled; raises nothing for what an artifact does."""

    def prepare(self) -> None:
        """Import and load what every job needs; counts against no job's time."""
        ...

    def __call__(self, job: Job) -> Done: ...


class Executor(Protocol):
    """Laws: every job of the schedule is yielded exactly once, in any order; a job whose process dies,
    hangs or outgrows its memory is yielded with a `failure` and costs no other job; a job is taken from
    the schedule only when a worker is free for it.
    """

    def start(self, work: Work, most: int) -> None:
        """Bring up workers that do `work`; more than `most` are of no use."""
        ...

    def results(self, schedule: Schedule) -> Iterator[Done]:
        """What became of each job, as it becomes known."""
        ...

    def stop(self) -> None:
        """End every worker at once, whatever it does. May be called twice; `start` may follow."""
        ...
