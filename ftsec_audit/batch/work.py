"""One job, in the process of a worker: scan, judge, store; and say in short what became of it."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftsec_audit.batch import memory
from ftsec_audit.batch.job import Done, Failure, FailureKind, Job
from ftsec_audit.batch.record import Record
from ftsec_audit.batch.store import Store
from ftsec_audit.errors import FtsecError, SourceError
from ftsec_audit.scan_options import ScanOptions
from ftsec_audit.types import Report, Verdict

if TYPE_CHECKING:
    from ftsec_audit.calibration.bank import Calibration
    from ftsec_audit.session import KeptBase
    from ftsec_audit.sources.eviction import CacheBudget


@dataclass(frozen=True, kw_only=True)
class ScanWork:
    """Everything a worker is told once; a call scans one job."""

    store: str
    scan: ScanOptions = field(default_factory=ScanOptions)
    """The same for all jobs; each has its own base."""
    judging: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments of `api.judged`; empty means the default policy."""
    calibration: tuple[Path, ...] = ()
    max_disk: int | None = None
    """Bytes of what it fetches from the Hub that a worker may leave in the cache."""
    words: tuple[str, ...] = ()
    """Options of the command that reproduces a report."""

    def prepare(self) -> None:
        import torch

        from ftsec_audit import api

        torch.set_num_threads(1)
        api.rules()
        _calibration(self.calibration)

    def __call__(self, job: Job) -> Done:
        started = time.monotonic()
        memory.forget_peak()
        with self._within_budget(job):
            outcome = self._outcome(job)
        record = Record(
            key=job.key,
            reference=job.names[0] if job.names else job.reference,
            base=job.base,
            size=job.size,
            scanned_at=now(),
            seconds=round(time.monotonic() - started, 3),
            memory=memory.peak(),
            **outcome,
        )
        try:
            return self._kept(job, record)
        except OSError as error:
            reason = f"{self.store}: {error.strerror or error}"
            return Done(job=job, failure=Failure(kind=FailureKind.STORE, reason=reason))

    def _within_budget(self, job: Job) -> AbstractContextManager[None]:
        if self.max_disk is None:
            return nullcontext()
        return _budget(self.max_disk).using([job.reference, *([job.base] if job.base else [])])

    def _outcome(self, job: Job) -> dict[str, Any]:
        from ftsec_audit import api
        from ftsec_audit.sources.transfer import Transfer

        job.keep_answers()
        transfer = Transfer()
        words = ["ftsec-audit", "scan", job.reference, *(["--base", job.base] if job.base else [])]
        try:
            options = replace(
                self.scan,
                base=job.base or self.scan.base,
                calibration=_calibration(self.calibration),
                command=shlex.join([*words, *self.words]),
            )
            report = api.scan_with(job.reference, options, transfer=transfer, kept_base=_kept())
        except MemoryError:
            return _failed(FailureKind.MEMORY, "memory could not be allocated")
        except SourceError as error:
            return _failed(FailureKind.SOURCE, str(error))
        except FtsecError as error:
            return _failed(FailureKind.ERROR, str(error))
        if transfer.given_up:  # what the report lacks may be had another time
            reason = f"{transfer.given_up:,} requests were given up while it was read"
            return _failed(FailureKind.SOURCE, reason)
        return {"report": report}

    def _kept(self, job: Job, record: Record) -> Done:
        store = _store(self.store)
        if record.failure:
            record = numbered(record, store)
        store.put(record)
        verdict = self.verdict(record.report) if record.report else None
        return Done(job=job, row=record.row(), verdict=verdict, seconds=record.seconds)

    def verdict(self, report: Report) -> Verdict:
        """By the policy of this run."""
        return self.judged(report).verdict

    def judged(self, report: Report) -> Report:
        from ftsec_audit import api

        return api.judged(report, **self.judging) if self.judging else report


def numbered(record: Record, store: Store) -> Record:
    """A failure with the number of its attempt."""
    return replace(record, attempt=store.failures(record.key) + 1)


def now() -> str:
    """UTC, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _failed(kind: FailureKind, reason: str) -> dict[str, Any]:
    return {"failure": Failure(kind=kind, reason=reason)}


@cache
def _store(url: str) -> Store:
    return Store(url)


@cache
def _budget(max_bytes: int) -> CacheBudget:
    from ftsec_audit.sources.eviction import CacheBudget

    return CacheBudget(max_bytes)


@cache
def _kept() -> KeptBase:
    """The base that this worker holds: its jobs come sorted by base."""
    from ftsec_audit.session import KeptBase

    return KeptBase()


@cache
def _calibration(paths: tuple[Path, ...]) -> Calibration:
    from ftsec_audit.calibration.bank import Calibration

    return Calibration.load(paths or None)
