"""The contract between a batch and whatever runs its jobs: processes here, a cluster elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from ftsec_audit.batch.job import Done, Job


class Work(Protocol):
    """Scans one job and stores its document. Can be pickled; raises nothing for what an artifact does."""

    def prepare(self) -> None:
        """Import and load what every job needs; counts against no job's time."""
        ...

    def __call__(self, job: Job) -> Done: ...


class Executor(Protocol):
    """Laws: every job taken from `jobs` is yielded exactly once, in any order; a job whose process dies,
    hangs or outgrows its memory is yielded with a `failure` and costs no other job; no more jobs are taken
    than there are workers to hold them.
    """

    def start(self, work: Work) -> None:
        """Bring up workers that do `work`."""
        ...

    def results(self, jobs: Iterable[Job]) -> Iterator[Done]:
        """What became of each job, as it becomes known."""
        ...

    def stop(self) -> None:
        """End every worker at once, whatever it does. May be called twice."""
        ...
