"""One run of a batch: what is finished is kept, what is not is given to the executor.

The run keeps nothing that the store does not: it can be ended at any moment and started again.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from ftsec_audit.batch.costs import Costs
from ftsec_audit.batch.events import Observer
from ftsec_audit.batch.executor import Executor
from ftsec_audit.batch.index import Index
from ftsec_audit.batch.job import Done, Failure, FailureKind, Job, Row
from ftsec_audit.batch.plan import BatchPlan, Unresolved
from ftsec_audit.batch.record import Record
from ftsec_audit.batch.schedule import Schedule
from ftsec_audit.batch.store import Store
from ftsec_audit.batch.summary import Summary
from ftsec_audit.batch.work import ScanWork, now, numbered
from ftsec_audit.errors import FtsecError, UsageError

if TYPE_CHECKING:
    from ftsec_audit.policy import Triage

_INDEXED_AT_ONCE = 200


@dataclass(frozen=True, kw_only=True)
class Batch:
    """A plan and everything it is carried out with."""

    plan: BatchPlan
    store: Store
    work: ScanWork
    executor: Executor
    costs: Costs = field(default_factory=Costs)
    """What scans are expected to take, for their order."""
    retry: bool = True
    """Whether artifacts that failed in an earlier run are scanned again."""
    index: Index | None = None
    observer: Observer | None = None
    triage: Triage | None = None
    """Artifacts that it asks more of are left to another batch: `Summary.passed_on`."""

    def run(self) -> Summary:
        """Carry it out. Ctrl-C ends it early, with everything finished kept; raises FtsecError when no
        result can be stored or no worker starts."""
        summary = Summary(plan=self.plan, started=time.monotonic())
        observer = self.observer or Observer()
        rows: list[Row] = []
        try:
            for done in self.outcomes(observer):
                self._settle(done, summary, observer, rows)
        except KeyboardInterrupt:
            summary.interrupted = True
        finally:
            self._indexed(rows, observer)
            observer.finished(summary)
        return summary

    def outcomes(self, observer: Observer) -> Iterator[Done]:
        """What became of each job and of each reference that names nothing, as it becomes known."""
        observer.planned(self.plan)
        for unresolved in self.plan.unresolved:
            yield self._unresolved(unresolved)
        jobs = []
        for job in self.plan.jobs:
            if earlier := self._earlier(job):
                yield earlier
            else:
                jobs.append(job)
        if not jobs:
            return
        observer.scanning(len(jobs))
        try:
            self.executor.start(self.work, len(jobs))
            for done in self.executor.results(Schedule(jobs, self.costs)):
                yield self._stored(done)
        finally:
            self.executor.stop()

    def _earlier(self, job: Job) -> Done | None:
        """What an earlier run has stored about a job, if that settles it."""
        if done := self._finished(job):
            return done
        attempt = 0 if self.retry else self.store.failures(job.key)
        if attempt and (record := self.store.get(f"{job.key}.failed-{attempt}")):
            return Done(job=job, row=record.row(), earlier=True)
        return None

    def _finished(self, job: Job) -> Done | None:
        try:
            record = self.store.get(job.key)
        except UsageError:  # not what was once written there: a disk fault, or a hand
            self.store.discard(job.key)
            return None
        if record is None or record.report is None:
            return None
        return Done(job=job, row=record.row(), verdict=self.work.verdict(record.report), earlier=True)

    def _stored(self, done: Done) -> Done:
        """A job whose worker was lost may have been stored just before; else its failure is stored now."""
        if done.failure is None:
            return done
        if done.failure.kind is FailureKind.STORE:
            raise FtsecError(
                done.failure.reason,
                hint="what is finished is kept: make room and run the same command again",
            )
        if finished := self._finished(done.job):
            return replace(finished, seconds=done.seconds, earlier=False)
        return self._failed(done.job, done.failure, done.seconds)

    def _unresolved(self, unresolved: Unresolved) -> Done:
        job = Job(key=unresolved.key, reference=unresolved.reference, names=(unresolved.reference,))
        return self._failed(job, Failure(kind=FailureKind.SOURCE, reason=unresolved.reason), 0.0)

    def _failed(self, job: Job, failure: Failure, seconds: float) -> Done:
        record = Record(
            key=job.key,
            reference=job.names[0],
            base=job.base,
            size=job.size,
            scanned_at=now(),
            seconds=seconds,
            failure=failure,
        )
        record = numbered(record, self.store)
        try:
            self.store.put(record)
        except OSError as error:
            raise FtsecError(error.strerror or str(error), where=self.store.url) from error
        return Done(job=job, row=record.row(), seconds=seconds)

    def _settle(self, done: Done, summary: Summary, observer: Observer, rows: list[Row]) -> None:
        assert done.row is not None
        if self._asks_more(done):
            summary.pass_on(done)
            observer.passed_on(done)
        else:
            summary.add(done)
            observer.done(done, summary)
        rows.append(done.row)
        if len(rows) >= _INDEXED_AT_ONCE:
            self._indexed(rows, observer)

    def _asks_more(self, done: Done) -> bool:
        if self.triage is None or done.row is None or done.row.failure:
            return False
        detected = [(one.rule, one.severity, one.certainty) for one in done.row.detected]
        return self.triage.asks_more(done.verdict, done.row.suspicion, detected)

    def _indexed(self, rows: list[Row], observer: Observer) -> None:
        """The index is a convenience: what it cannot take is found by the next `report --store`."""
        if self.index is not None and rows:
            problem = self.index.add(rows)
            if problem:
                observer.note(f"not indexed now: {problem}")
        rows.clear()
