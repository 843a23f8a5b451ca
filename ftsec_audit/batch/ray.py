"""The executor of a cluster: Ray actors that scan one artifact at a time and may be lost (extra `ray`).

Each actor is a process with a core, or a GPU, of its own; the schedule hands it artifacts of the base it
holds for as long as there are any. An artifact whose actor dies is tried once more elsewhere, as the node
may have been the cause; one that hangs or outgrows its memory is not. What a worker stores must lie where
every node and the driver find it: a shared folder or an fsspec URL.
"""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ftsec_audit.batch import memory
from ftsec_audit.batch.executor import Work
from ftsec_audit.batch.job import Done, Failure, FailureKind, Job
from ftsec_audit.batch.schedule import Schedule
from ftsec_audit.errors import FtsecError, UsageError

if TYPE_CHECKING:
    from types import ModuleType

_TICK = 0.2  # seconds between two looks at clocks and memory
_SIZED_EVERY = 30.0  # seconds between two looks at how large the cluster is
_MOST_FAILED_STARTS = 3
_HANDED_ON = ("HF_", "FTSEC_AUDIT_", "SSL_", "REQUESTS_CA_BUNDLE", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
"""Variables of the driver that its workers get too, wherever they run."""
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


class _Scanner:
    """What runs inside an actor."""

    def __init__(self, work: Work) -> None:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # standard output belongs to the summary
        self._work = work
        work.prepare()

    def ready(self) -> None:
        """Answers once everything is loaded."""

    def scan(self, job: Job) -> Done:
        return self._work(job)

    def held(self) -> int:
        return memory.held("self")


@dataclass
class _Worker:
    """An actor and what it is doing; `task` is what it has been asked last."""

    actor: Any
    task: Any
    ready: bool = False
    job: Job | None = None
    since: float = 0.0

    @property
    def is_free(self) -> bool:
        return self.ready and self.job is None


class RayExecutor:
    """One actor for each core of the cluster, or for each `gpus` GPUs; at most `workers`.

    Uses the Ray of this process or of RAY_ADDRESS, as `ray job submit` sets it, and else starts one on
    this machine for as long as it is used. `max_seconds` and `max_memory` (bytes) are per artifact.
    """

    def __init__(
        self,
        workers: int | None = None,
        *,
        address: str | None = None,
        gpus: float = 0.0,
        max_seconds: float | None = None,
        max_memory: int | None = None,
    ) -> None:
        self._most, self._address, self._gpus = workers, address, gpus
        self._max_seconds, self._max_memory = max_seconds, max_memory
        self._workers: list[_Worker] = []
        self._losses: Counter[str] = Counter()
        self._failed_starts = 0
        self._owns_ray = False
        self._sized = 0.0

    def start(self, work: Work, most: int) -> None:
        self._ray = _import_ray()
        self._work = work
        self._most = min(most, self._most or most)
        self._connect()
        self._failed_starts = 0
        self._class = self._ray.remote(_Scanner).options(
            num_cpus=0 if self._gpus else 1,
            num_gpus=self._gpus,
            max_restarts=0,
            max_task_retries=0,
            max_concurrency=2 if self._max_memory else 1,
            runtime_env={"env_vars": _handed_on()},
        )
        self._grow()

    def results(self, schedule: Schedule) -> Iterator[Done]:
        while schedule or any(worker.job for worker in self._workers):
            self._grow()
            for worker in self._workers:
                if worker.is_free and (job := schedule.take(id(worker))):
                    worker.job, worker.since = job, time.monotonic()
                    worker.task = worker.actor.scan.remote(job)
            yield from self._look(schedule)

    def stop(self) -> None:
        for worker in self._workers:
            self._ray.kill(worker.actor)
        self._workers = []
        if self._owns_ray:
            self._ray.shutdown()
            self._owns_ray = False

    def _connect(self) -> None:
        if self._ray.is_initialized():
            return
        try:
            self._ray.init(self._address, log_to_driver=False, logging_level="ERROR", include_dashboard=False)
        except Exception as error:  # Ray raises bare ones too, and none of them is the program's own
            raise UsageError(
                f"no Ray: {error}",
                where=self._address or "RAY_ADDRESS",
                hint="a cluster that asks for a token needs RAY_AUTH_MODE=token here too",
            ) from error
        self._owns_ray = True

    def _grow(self) -> None:
        """As many workers as the cluster has room for now, which may grow and shrink."""
        if self._sized and time.monotonic() - self._sized < _SIZED_EVERY:
            return
        self._sized = time.monotonic()
        total = self._ray.cluster_resources()
        room = int(total.get("GPU", 0.0) / self._gpus if self._gpus else total.get("CPU", 0.0))
        if not room and not self._workers:
            raise UsageError("the cluster has no GPU" if self._gpus else "the cluster has no core")
        for _ in range(min(room, self._most or room) - len(self._workers)):
            self._workers.append(self._spawn())

    def _spawn(self) -> _Worker:
        actor = self._class.remote(self._work)
        return _Worker(actor=actor, task=actor.ready.remote())

    def _look(self, schedule: Schedule) -> Iterator[Done]:
        """Wait a little for answers and deaths, then look at clocks and memory."""
        asked = {worker.task: worker for worker in self._workers if worker.job or not worker.ready}
        if not asked:
            time.sleep(_TICK)
            return
        answered, _ = self._ray.wait(list(asked), num_returns=1, timeout=_TICK)
        for task in answered:
            yield from self._answer(asked[task], schedule)
        for worker in [worker for worker in self._workers if worker.job]:
            if failure := self._outgrown(worker):
                yield _lost(worker, failure)
                self._replace(worker, schedule)

    def _answer(self, worker: _Worker, schedule: Schedule) -> Iterator[Done]:
        try:
            done = self._ray.get(worker.task)
        except self._ray.exceptions.RayError as error:
            yield from self._died(worker, error, schedule)
            return
        if worker.job is None:
            worker.ready, self._failed_starts = True, 0
            return
        worker.job = None
        yield done

    def _died(self, worker: _Worker, error: Exception, schedule: Schedule) -> Iterator[Done]:
        reason = str(error).strip().splitlines()[0][:300]
        job = worker.job
        if job is None:
            self._failed_starts += 1
            if self._failed_starts >= _MOST_FAILED_STARTS:
                raise FtsecError(f"workers do not start ({reason})")
        elif self._losses[job.key]:
            yield _lost(
                worker, Failure(kind=FailureKind.CRASH, reason=f"the worker was lost twice: {reason}")
            )
        else:
            self._losses[job.key] += 1
            schedule.put_back(job)
        self._replace(worker, schedule)

    def _outgrown(self, worker: _Worker) -> Failure | None:
        if self._max_seconds is not None and time.monotonic() - worker.since > self._max_seconds:
            return Failure(
                kind=FailureKind.TIMEOUT,
                reason=f"not done after {self._max_seconds:g} s; the worker was ended",
            )
        if self._max_memory is not None and self._held(worker) > self._max_memory:
            return Failure(
                kind=FailureKind.MEMORY,
                reason=f"held more than {self._max_memory:,} bytes; the worker was ended",
            )
        return None

    def _held(self, worker: _Worker) -> int:
        try:
            return int(self._ray.get(worker.actor.held.remote(), timeout=_TICK))
        except self._ray.exceptions.RayError:  # busy or gone: the next look will tell
            return 0

    def _replace(self, worker: _Worker, schedule: Schedule) -> None:
        schedule.forget(id(worker))
        self._ray.kill(worker.actor)
        self._workers[self._workers.index(worker)] = self._spawn()


def _lost(worker: _Worker, failure: Failure) -> Done:
    assert worker.job is not None
    return Done(job=worker.job, failure=failure, seconds=round(time.monotonic() - worker.since, 3))


def _handed_on() -> dict[str, str]:
    chosen = {name: value for name, value in os.environ.items() if name.startswith(_HANDED_ON)}
    return chosen | dict.fromkeys(_THREADS, "1")


def _import_ray() -> ModuleType:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # an audit tells nobody
    try:
        import ray
    except ImportError as error:
        raise UsageError("needs Ray", hint="pip install 'ftsec-audit[ray]'") from error
    return ray
