"""Workers keep their base, share large groups, and do not load one for nothing."""

from __future__ import annotations

from collections import Counter

from ftsec_audit.batch.costs import Costs
from ftsec_audit.batch.job import Job
from ftsec_audit.batch.schedule import Schedule
from ftsec_audit.types import Profile

LOADING = Costs(fixed=10.0, per_byte=0.0, load_per_byte=1.0)


def jobs(**groups: int) -> list[Job]:
    """So many jobs for each base, whose size is 100."""
    return [
        Job(key=f"{base}{number}", reference=base, base=base, base_size=100)
        for base, count in groups.items()
        for number in range(count)
    ]


def carried_out(schedule: Schedule, workers: int, costs: Costs) -> tuple[float, Counter[tuple[int, str]]]:
    """The time when the last is done, and how many jobs of which base each worker did."""
    clock, held, done = dict.fromkeys(range(workers), 0.0), {}, Counter[tuple[int, str]]()
    busy = list(clock)
    while busy:
        worker = min(busy, key=lambda one: clock[one])
        job = schedule.take(worker)
        if job is None:
            busy.remove(worker)
            continue
        if held.get(worker) != job.base:
            clock[worker] += costs.load(job)
            held[worker] = job.base
        clock[worker] += costs.scan(job)
        done[worker, job.base] += 1
    return max(clock.values()), done


def test_a_worker_stays_with_its_base_until_the_group_is_done() -> None:
    schedule = Schedule(jobs(a=5, b=5, c=2), LOADING)
    taken = [(worker, job.base) for _ in range(5) for worker in (1, 2) if (job := schedule.take(worker))]
    assert len({base for worker, base in taken if worker == 1}) == 1
    assert len({base for worker, base in taken if worker == 2}) == 1
    assert {base for _, base in taken} == {"a", "b"}
    assert schedule.loads == 2


def test_a_large_group_is_shared_and_a_small_one_is_not() -> None:
    _, done = carried_out(Schedule(jobs(large=100, small=3), LOADING), 2, LOADING)
    assert len([worker for worker, base in done if base == "large"]) == 2
    assert len([worker for worker, base in done if base == "small"]) == 1


def test_no_base_is_loaded_for_what_its_holder_does_sooner() -> None:
    schedule = Schedule(jobs(a=5), LOADING)
    assert schedule.take(1) is not None
    assert schedule.take(2) is None  # four jobs are 40 s, the base 100 s
    assert len(schedule) == 4
    cheap = Schedule(jobs(a=5), Costs(fixed=10.0))
    assert cheap.take(1) and cheap.take(2)


def test_the_group_of_a_lost_worker_goes_to_another_one() -> None:
    schedule = Schedule(jobs(a=3), LOADING)
    job = schedule.take(1)
    assert job and schedule.take(2) is None
    schedule.put_back(job)
    schedule.forget(1)
    assert [each.key for each in schedule] == ["a0", "a1", "a2"]
    assert not schedule


def test_every_job_is_given_out_once_close_to_the_ideal_time() -> None:
    groups = {f"base{number}": number * 3 + 1 for number in range(20)}
    schedule = Schedule(jobs(**groups), LOADING)
    last, done = carried_out(schedule, 4, LOADING)
    assert sum(done.values()) == sum(groups.values())
    ideal = (sum(groups.values()) * 10.0 + len(groups) * 100.0) / 4
    assert last < 1.15 * ideal
    assert schedule.loads <= len(groups) + 4


def test_recorded_scans_replace_the_assumptions() -> None:
    assumed = Costs.of(Profile.QUICK)
    assert assumed.fitted([(100, 1.0)] * 5) == assumed
    fitted = assumed.fitted([(size, 2.0 + 0.5 * size) for size in range(40)])
    assert abs(fitted.fixed - 2.0) < 1e-9
    assert abs(fitted.per_byte - 0.5) < 1e-9
    assert fitted.recorded == 40
    assert Costs.of(Profile.DEEP).fitted([(7, 3.0)] * 30).scan(Job(key="", reference="", size=7)) == 3.0
