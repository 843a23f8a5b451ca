"""Work for an executor that does what a job's reference says, instead of scanning it."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from builders import reports

from ftsec_audit.batch.job import Done, Failure, FailureKind, Job
from ftsec_audit.batch.record import Record
from ftsec_audit.batch.store import Store
from ftsec_audit.types import Report, Verdict


def job(reference: str, number: int = 0) -> Job:
    return Job(key=f"{number:064x}", reference=reference, names=(reference,))


@dataclass(frozen=True, kw_only=True)
class ToldWork:
    """`ok`, `bad`, `hang`, `exit`, `kill`, `swell`, `store-and-die`; each call leaves a line in `log`."""

    store: str
    log: Path
    prepared: bool = True

    def prepare(self) -> None:
        if not self.prepared:
            os._exit(9)

    def __call__(self, job: Job) -> Done:
        with self.log.open("a") as log:
            log.write(f"{os.getpid()} {job.reference} {job.key}\n")
        deed = job.reference.partition(":")[0]
        if deed == "hang":
            time.sleep(3600)
        elif deed == "exit":
            os._exit(7)
        elif deed == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif deed == "swell":
            hoard = [bytearray(os.urandom(1 << 20)) for _ in range(400)]
            time.sleep(3600 + len(hoard))
        elif deed == "slow":
            time.sleep(0.5)
        report = reports.failing() if deed == "bad" else reports.passing()
        record = Record(key=job.key, reference=job.reference, report=report, seconds=0.01)
        try:
            Store(self.store).put(record)
        except OSError as error:
            return Done(job=job, failure=Failure(kind=FailureKind.STORE, reason=str(error)))
        if deed == "store-and-die":
            os._exit(5)
        return Done(job=job, row=record.row(), verdict=report.verdict, seconds=record.seconds)

    def verdict(self, report: Report) -> Verdict:
        return report.verdict
