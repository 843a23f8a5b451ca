"""The executor of one machine: processes that scan one artifact at a time and may be lost.

Each worker is a fresh interpreter (`spawn`) with one thread for arithmetic. The pool hands out a job when
a worker is free, watches its clock and its memory, and puts another worker in the place of one that was
killed or died. A worker whose driver is gone ends itself.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

from ftsec_audit.batch import memory
from ftsec_audit.batch.executor import Work
from ftsec_audit.batch.job import Done, Failure, FailureKind, Job
from ftsec_audit.batch.schedule import Schedule
from ftsec_audit.errors import FtsecError

_TICK = 0.2  # seconds between two looks at clocks and memory
_MOST_FAILED_STARTS = 3
_READY = "ready"
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


@dataclass
class _Worker:
    """A process and what it is doing."""

    process: Any
    pipe: Connection
    ready: bool = False
    job: Job | None = None
    since: float = 0.0

    @property
    def is_free(self) -> bool:
        return self.ready and self.job is None

    def give(self, job: Job) -> None:
        self.job, self.since = job, time.monotonic()
        self.pipe.send(job)

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


class LocalPool:
    """`workers` processes, or one for each core; `max_seconds` and `max_memory` (bytes) per artifact."""

    def __init__(
        self, workers: int | None = None, *, max_seconds: float | None = None, max_memory: int | None = None
    ) -> None:
        self._size = workers or cores()
        self._max_seconds, self._max_memory = max_seconds, max_memory
        self._context = multiprocessing.get_context("spawn")
        self._work: Work | None = None
        self._workers: list[_Worker] = []
        self._failed_starts = 0

    def start(self, work: Work, most: int) -> None:
        self._work, self._failed_starts = work, 0
        self._workers = [self._spawn() for _ in range(min(self._size, most))]

    def results(self, schedule: Schedule) -> Iterator[Done]:
        while schedule or any(worker.job for worker in self._workers):
            for index, worker in enumerate(self._workers):
                if worker.is_free and (job := schedule.take(index)):
                    try:
                        worker.give(job)
                    except OSError:  # it died while it was idle; the job goes to another one
                        worker.job, worker.ready = None, False
                        schedule.put_back(job)
            yield from self._look(schedule)

    def stop(self) -> None:
        for worker in self._workers:
            worker.end()
        self._workers = []

    def _look(self, schedule: Schedule) -> Iterator[Done]:
        """Wait a little for messages and deaths, then look at clocks and memory."""
        wait([each for w in self._workers for each in (w.pipe, w.process.sentinel)], timeout=_TICK)
        for index, worker in enumerate(self._workers):
            done = self._heard(worker)
            if done is None and not worker.process.is_alive():
                done = self._died(worker)
                self._replace(index)
                schedule.forget(index)
            elif done is None and (failure := self._outgrown(worker)):
                done = self._lost(worker, failure)
                self._replace(index)
                schedule.forget(index)
            if done is not None:
                yield done

    def _heard(self, worker: _Worker) -> Done | None:
        """A result that is waiting in the pipe; None also for a message that broke off."""
        try:
            if not worker.pipe.poll():
                return None
            message = worker.pipe.recv()
        except (EOFError, OSError):
            return None
        if message == _READY:
            worker.ready, self._failed_starts = True, 0
            return None
        worker.job = None
        done: Done = message
        return done

    def _died(self, worker: _Worker) -> Done | None:
        worker.process.join()
        if worker.job is None:
            self._failed_starts += not worker.ready
            if self._failed_starts >= _MOST_FAILED_STARTS:
                raise FtsecError(f"workers do not start ({_ending(worker.process.exitcode)})")
            return None
        failure = Failure(kind=FailureKind.CRASH, reason=f"the worker {_ending(worker.process.exitcode)}")
        return self._lost(worker, failure)

    def _outgrown(self, worker: _Worker) -> Failure | None:
        if worker.job is None:
            return None
        if self._max_seconds is not None and time.monotonic() - worker.since > self._max_seconds:
            return Failure(
                kind=FailureKind.TIMEOUT,
                reason=f"not done after {self._max_seconds:g} s; the worker was ended",
            )
        if self._max_memory is not None and memory.held(worker.process.pid) > self._max_memory:
            return Failure(
                kind=FailureKind.MEMORY,
                reason=f"held more than {self._max_memory:,} bytes; the worker was ended",
            )
        return None

    def _lost(self, worker: _Worker, failure: Failure) -> Done:
        assert worker.job is not None
        return Done(job=worker.job, failure=failure, seconds=round(time.monotonic() - worker.since, 3))

    def _replace(self, index: int) -> None:
        self._workers[index].end()
        self._workers[index] = self._spawn()

    def _spawn(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_serve, args=(theirs, self._work), daemon=True)
        process.start()
        theirs.close()  # so that reading from a dead worker ends
        return _Worker(process=process, pipe=ours)


def cores() -> int:
    """Those this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _ending(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        name = signal.Signals(-exit_code).name
        hint = ", perhaps for lack of memory" if name == "SIGKILL" else ""
        return f"was ended by {name}{hint}"
    return f"ended with exit code {exit_code}"


def _serve(pipe: Connection, work: Work) -> None:
    """The life of a worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's to answer
    threading.Thread(target=_follow_driver, daemon=True).start()
    os.environ.update(dict.fromkeys(_THREADS, "1"))  # before anything imports torch
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # standard output belongs to the summary
    work.prepare()
    pipe.send(_READY)
    while True:
        try:
            job = pipe.recv()
        except EOFError:
            return
        pipe.send(work(job))


def _follow_driver() -> None:
    """End with the driver, however it ended: nobody waits for the result any more."""
    driver = multiprocessing.parent_process()
    if driver is not None:
        driver.join()
    os._exit(1)
