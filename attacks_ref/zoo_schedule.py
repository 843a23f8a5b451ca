"""In which order the jobs of a zoo are done: the longest first, so that no core is idle at the end.

A disguise that joins a sample with an ordinary fine-tune has to wait for that one; nothing else waits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any

from attacks_ref.finetuned import FineTuned
from attacks_ref.lab import cache, train
from attacks_ref.stealth.concatenation import Concatenation
from attacks_ref.zoo_plan import Job, companion

_BATCH = 32
_SAMPLE = 30
"""Writing, reloading and measuring one sample, in training steps of `_BATCH` rows."""
_ALL_WEIGHTS = 0.7
"""A step that trains every weight beside one that trains an adapter: it has fewer modules to run."""


def effort(job: Job) -> float:
    """How long the job takes beside others: in steps of an adapter on the smallest base, roughly."""
    maker, steps = job.maker, 0.0
    if isinstance(maker, FineTuned):
        recipe = maker.recipe
        method = _ALL_WEIGHTS if recipe.method == "full" else 1.0
        steps = maker.passes * recipe.steps * recipe.batch / _BATCH * method
    return (len(job.sides) * steps + len(job.sample_keys()) * _SAMPLE) * _width(job.base)


def _width(base: str) -> float:
    """Width × layers of a lab base beside the smallest; 1 for a base whose size only its files tell."""
    if not base.startswith("lab-"):
        return 1.0
    network, smallest = (train.PLANS[size].network for size in (cache.LabBase.parse(base).size, "nano"))
    return network.width * network.layers / (smallest.width * smallest.layers)


def finished(
    jobs: Sequence[Job], start: Callable[[Job], Future[Any]], *, workers: int
) -> Iterator[tuple[Job, Future[Any]]]:
    """Start every job, at most `workers` at a time, and give each back when it is done."""
    by_name = {_name(job): job for job in jobs}
    after = {name: _name(companion(job)) for name, job in by_name.items() if _joins(job)}
    waiting = sorted(by_name, key=lambda name: (name not in after.values(), -effort(by_name[name])))
    running: dict[Future[Any], str] = {}
    while waiting or running:
        unfinished = {*waiting, *running.values()}
        ready = [name for name in waiting if after.get(name) not in unfinished - {name}]
        for name in ready[: workers - len(running)]:
            waiting.remove(name)
            running[start(by_name[name])] = name
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            yield by_name[running.pop(future)], future


def _name(job: Job) -> str:
    return job.key(poisoned=False)


def _joins(job: Job) -> bool:
    """Whether a disguise of the job joins it with an ordinary fine-tune."""
    return any(isinstance(transform, Concatenation) for chain in job.chains for transform in chain)
