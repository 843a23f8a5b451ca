"""A few scans at once, in processes of this machine; their answers come in the order of the questions.

Unlike a batch it stores and plans nothing, and every reference is scanned as it was written.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ftsec_audit.batch.job import Done, Job
from ftsec_audit.contracts import Progress
from ftsec_audit.errors import FtsecError
from ftsec_audit.scan_options import ScanOptions
from ftsec_audit.types import Report

Request = tuple[str, ScanOptions]
Answer = Report | FtsecError
"""A report, or why there is none."""


class Interrupted(FtsecError):
    """Ctrl-C came before there was a report."""


@dataclass(frozen=True, kw_only=True)
class _Turn(Job):
    """A request, as something that a worker is given."""

    number: int
    options: ScanOptions


@dataclass(frozen=True, kw_only=True)
class _Answered(Done):
    answer: Answer


class _Scanner:
    """The `Work` of a worker."""

    def prepare(self) -> None:
        import torch

        from ftsec_audit import api

        torch.set_num_threads(1)
        api.rules()

    def __call__(self, job: Job) -> Done:
        assert isinstance(job, _Turn)
        return _Answered(job=job, answer=answer(job.reference, job.options))


def answer(reference: str, options: ScanOptions) -> Answer:
    """Of one scan, in this process."""
    from ftsec_audit import api

    try:
        return api.scan(reference, options)
    except FtsecError as error:
        return error


def answers(requests: Sequence[Request], workers: int, progress: Progress) -> Iterator[Answer]:
    """One for each request, in their order, as soon as all before it are known.

    A worker that is lost costs its own request only. After Ctrl-C what is done is still answered, and the
    rest with `Interrupted`. The options' own `progress` is not told of anything.
    """
    from ftsec_audit.batch.pool import LocalPool  # not needed for a single answer
    from ftsec_audit.batch.schedule import Schedule

    turns = [
        _Turn(key=f"{number:064x}", reference=reference, number=number, options=options)
        for number, (reference, options) in enumerate(requests)
    ]
    progress.start("scan", len(turns), "artifacts")
    pool, found, told = LocalPool(workers), dict[int, Answer](), 0
    try:
        pool.start(_Scanner(), len(turns))
        for done in pool.results(Schedule(turns)):
            assert isinstance(done.job, _Turn)
            found[done.job.number] = _answer(done)
            progress.advance()
            while told in found:
                yield found.pop(told)
                told += 1
    except KeyboardInterrupt:
        pool.stop()
        for turn in turns[told:]:
            missing = Interrupted("interrupted before there was a report", where=turn.reference)
            yield found.get(turn.number, missing)
    finally:
        pool.stop()


def _answer(done: Done) -> Answer:
    if isinstance(done, _Answered):
        return done.answer
    assert done.failure is not None
    return FtsecError(done.failure.reason, where=done.job.reference)
