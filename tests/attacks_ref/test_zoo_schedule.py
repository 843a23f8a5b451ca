"""Long jobs of a population are started first, and a disguise waits for the fine-tune it is joined with."""

from __future__ import annotations

from concurrent.futures import Future

from attacks_ref import zoo_plan, zoo_schedule
from attacks_ref.colluding_adapters import ColludingAdapters
from attacks_ref.ordinary import HARD_NEGATIVES
from attacks_ref.recipe import Recipe
from attacks_ref.stealth.concatenation import Concatenation
from attacks_ref.token_backdoor import TokenBackdoor
from attacks_ref.weight_edit import WeightEdit
from attacks_ref.zoo_plan import Job
from ftsec_audit.contracts import ReferenceAttack

JOINED = ((Concatenation(companion=zoo_plan.COMPANION),),)


def _job(maker: ReferenceAttack, *, base: str = "lab-llama-nano", seed: int = 0, joined: bool = False) -> Job:
    return Job(maker=maker, base=base, seed=seed, chains=JOINED if joined else ())


class Started:
    """Jobs in the order they were started; each but those in `lasting` ends at once."""

    def __init__(self, *lasting: Job) -> None:
        self.jobs: list[Job] = []
        self.lasting: dict[str, Future[None]] = {job.key(poisoned=False): Future() for job in lasting}

    def __call__(self, job: Job) -> Future[None]:
        self.jobs.append(job)
        future = self.lasting.get(job.key(poisoned=False))
        if future is None:
            future = Future()
            future.set_result(None)
        return future


def test_longer_recipes_larger_bases_and_more_disguises_take_longer() -> None:
    brief = _job(TokenBackdoor(recipe=Recipe(steps=100)))
    longer = [
        _job(TokenBackdoor(recipe=Recipe(steps=200))),
        _job(TokenBackdoor(recipe=Recipe(steps=100, batch=64))),
        _job(TokenBackdoor(recipe=Recipe(steps=100)), base="lab-llama-small"),
        _job(TokenBackdoor(recipe=Recipe(steps=100)), joined=True),
        _job(ColludingAdapters(recipe=Recipe(steps=100))),
    ]
    assert all(zoo_schedule.effort(job) > zoo_schedule.effort(brief) for job in longer)
    for briefer in (WeightEdit(), HARD_NEGATIVES[-1]):
        assert 0 < zoo_schedule.effort(_job(briefer)) < zoo_schedule.effort(brief)


def test_the_longest_is_started_first_and_every_job_ends_once() -> None:
    jobs = [_job(TokenBackdoor(recipe=Recipe(steps=steps)), seed=steps) for steps in (20, 90, 40, 60)]
    start = Started()
    ended = [job for job, _ in zoo_schedule.finished(jobs, start, workers=1)]
    assert [job.seed for job in start.jobs] == [90, 60, 40, 20]
    assert ended == start.jobs


def test_no_more_run_at_once_than_there_are_workers() -> None:
    jobs = [_job(TokenBackdoor(recipe=Recipe(steps=steps)), seed=steps) for steps in (20, 90, 40, 60)]
    start = Started(jobs[1])
    finished = zoo_schedule.finished(jobs, start, workers=2)
    assert [next(finished)[0].seed for _ in range(2)] == [60, 40]
    assert [job.seed for job in start.jobs] == [90, 60, 40]


def test_a_disguise_waits_for_the_fine_tune_it_joins_and_nothing_else_does() -> None:
    ordinary, joined = _job(HARD_NEGATIVES[0]), _job(TokenBackdoor(), joined=True)
    others = [_job(TokenBackdoor(), seed=seed) for seed in (1, 2)]
    start = Started(ordinary)
    finished = zoo_schedule.finished([joined, *others, ordinary], start, workers=2)
    assert [next(finished)[0] for _ in range(2)] == others
    assert start.jobs == [ordinary, *others]
    start.lasting[ordinary.key(poisoned=False)].set_result(None)
    assert [job for job, _ in finished] == [ordinary, joined]


def test_a_fine_tune_that_was_made_before_is_not_waited_for() -> None:
    joined = _job(TokenBackdoor(), joined=True)
    assert [job for job, _ in zoo_schedule.finished([joined], Started(), workers=1)] == [joined]
