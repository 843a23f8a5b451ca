"""Nothing that was entered is lost, nothing is scanned twice without need; in SQLite and PostgreSQL."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from ftsec_audit.errors import UsageError
from ftsec_audit.service.queue import Queue, Replayed, State


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def queue(database_url: str, clock: Clock) -> Iterator[Queue]:
    queue = Queue(database_url, hold=30, clock=clock)
    yield queue
    queue.close()


def taken(queue: Queue, most: int = 10) -> list[str]:
    return [item.reference for item in queue.take(most)]


def test_first_in_is_first_out_and_each_is_taken_once(queue: Queue, clock: Clock) -> None:
    for name in ("b", "a", "c"):
        assert queue.put([name, name], "hub") == [name]
        clock.now += 1
    assert queue.oldest() == 3
    assert taken(queue, 2) == ["b", "a"]
    assert taken(queue) == ["c"]
    assert taken(queue) == []
    assert queue.counts()[State.TAKEN] == 3


def test_a_hold_that_runs_out_frees_what_was_held(queue: Queue, clock: Clock) -> None:
    queue.put(["a", "b"], "hub")
    first, _ = queue.take(2)
    clock.now += 29
    queue.renew([first])
    clock.now += 2
    assert taken(queue) == ["b"]  # its holder is gone; that of the other one is alive
    clock.now += 30
    assert taken(queue) == ["a", "b"]


def test_a_reopened_queue_has_everything(queue: Queue, database_url: str, clock: Clock) -> None:
    queue.put(["a", "b", "c"], "hub")
    (item,) = queue.take(1)
    queue.done(item, verdict="pass", key="k")
    queue.take(1)
    queue.close()
    clock.now += 31
    again = Queue(database_url, clock=clock)
    assert taken(again) == ["b", "c"]
    assert again.counts()[State.DONE] == 1
    again.close()


def test_what_is_done_is_entered_again_only_on_request_and_what_failed_always(queue: Queue) -> None:
    queue.put(["a", "b"], "hub")
    first, second = queue.take(2)
    assert queue.put(["a"], "api", again=True) == []  # being scanned
    queue.done(first, verdict="fail", key="k")
    queue.failed(second, "source: gone")
    assert queue.put(["a", "b"], "hub") == ["b"]
    assert queue.put(["a"], "api", again=True) == ["a"]
    item = next(item for item in queue.recent() if item.reference == "a")
    assert (item.verdict, item.key, item.origin, item.taken) == ("", "", "api", 0)


def test_what_is_given_back_waits_for_its_time(queue: Queue, clock: Clock) -> None:
    queue.put(["a"], "hub")
    (item,) = queue.take(1)
    queue.give_back(item, after=60, reason="the Hub is away")
    assert taken(queue) == []
    clock.now += 61
    (again,) = queue.take(1)
    assert (again.taken, again.reason) == (1, "the Hub is away")


def test_what_brings_its_taker_down_every_time_is_given_up(queue: Queue, clock: Clock) -> None:
    queue.put(["a", "b"], "hub")
    for _ in range(10):
        assert "a" in taken(queue, 1)
        clock.now += 31
    assert taken(queue) == ["b"]
    (failed,) = [item for item in queue.recent() if item.state is State.FAILED]
    assert "given up" in failed.reason


def test_a_delivery_counts_once_also_when_it_names_nothing(queue: Queue, clock: Clock) -> None:
    assert queue.put(["a"], "mlflow", delivery="1") == ["a"]
    with pytest.raises(Replayed):
        queue.put(["b"], "mlflow", delivery="1")
    with pytest.raises(UsageError):
        queue.put([""], "mlflow", delivery="2")
    assert queue.put(["b"], "mlflow", delivery="2") == ["b"]  # the failed one left no trace
    clock.now += 7200
    queue.put([], "mlflow", delivery="3")
    assert queue.counts()[State.WAITING] == 2


@pytest.mark.parametrize("reference", ["", "x" * 501, "a\nb", "a\0b", "\udc80"])
def test_nonsense_is_refused(queue: Queue, reference: str) -> None:
    with pytest.raises(UsageError, match="not printable"):
        queue.put([reference], "hub")


def test_the_unfinished_are_listed_first_then_the_latest(queue: Queue, clock: Clock) -> None:
    queue.put(["a", "b", "c"], "hub")
    for item in queue.take(2):
        clock.now += 1
        queue.done(item, verdict="pass", key="k")
    assert [item.reference for item in queue.recent()] == ["c", "b", "a"]
    assert [item.reference for item in queue.recent(1)] == ["c"]


def test_many_takers_share_without_overlap(database_url: str) -> None:
    Queue(database_url).put([f"r{n}" for n in range(40)], "hub")
    found: list[str] = []

    def take() -> None:
        queue = Queue(database_url)
        while names := taken(queue, 3):
            found.extend(names)
        queue.close()

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == sorted(f"r{n}" for n in range(40))


def test_how_far_a_query_was_watched_is_remembered(queue: Queue) -> None:
    assert queue.watched("q") == ""
    queue.watch_until("q", "2026-01-01")
    queue.watch_until("q", "2026-01-02")
    queue.watch_until("other", "2025-01-01")
    assert queue.watched("q") == "2026-01-02"
