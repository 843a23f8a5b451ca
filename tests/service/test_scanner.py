"""Whatever the child does, every reference is settled once or waits again."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from ftsec_audit.batch.database import Database
from ftsec_audit.batch.index import Filter, Index
from ftsec_audit.batch.store import Store
from ftsec_audit.service.queue import Item, Queue, State
from ftsec_audit.service.scanner import Scanner

TESTS = Path(__file__).parents[1]


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


class Setting:
    """A scanner of told batches, below one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.clock = folder, Clock()
        self.queue = Queue(f"sqlite:///{folder / 'queue.sqlite'}", clock=self.clock)
        self.store = Store(str(folder / "store"))
        self.index = Index(f"sqlite:///{folder / 'index.sqlite'}")
        self.told: list[dict[str, Any]] = []
        self.problem = ""

    def scanner(self) -> Scanner:
        path = os.pathsep.join([str(TESTS), str(TESTS.parent), os.environ.get("PYTHONPATH", "")])
        return Scanner(
            self.queue,
            self.store,
            self.index,
            ("--store", self.store.url),
            environment={**os.environ, "PYTHONPATH": path},
            told=self.told.append,
            child=(sys.executable, "-m", "builders.told_batch"),
        )

    def scan(self, *references: str) -> dict[str, Item]:
        self.queue.put(references, "hub")
        scanner = self.scanner()
        scanner.run(until_empty=True)
        self.problem = scanner.problem
        return {item.reference: item for item in self.queue.recent()}


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    return Setting(tmp_path)


def test_what_is_scanned_is_settled_and_shown_at_once(setting: Setting) -> None:
    items = setting.scan("hf://org/ok-1", "hf://org/crash-1", "hf://org/ok-2")
    assert [items[f"hf://org/{name}"].state for name in ("ok-1", "ok-2", "crash-1")] == [
        "done",
        "done",
        "failed",
    ]
    assert items["hf://org/ok-1"].verdict == "pass"
    assert items["hf://org/crash-1"].reason == "crash: so it goes"
    assert {row.key for row in setting.index.rows(Filter())} == {
        items["hf://org/ok-1"].key,
        items["hf://org/ok-2"].key,
    }
    assert [event["event"] for event in setting.told] == ["done", "failed", "done"]
    assert setting.problem == ""


def test_what_cannot_be_fetched_is_tried_three_times(setting: Setting) -> None:
    for attempt in range(3):
        (item,) = setting.scan("hf://org/source-1").values()
        assert item.state is (State.WAITING if attempt < 2 else State.FAILED)
        assert "so it goes" in item.reason
        setting.clock.now += 301
    assert len((setting.folder / "log").read_text().splitlines()) == 3


def test_a_batch_that_fails_as_a_whole_loses_nothing_and_says_why(setting: Setting) -> None:
    items = setting.scan("hf://org/ok-1", "hf://org/mute-1", "hf://org/ok-2")
    assert items["hf://org/ok-1"].state is State.DONE
    assert items["hf://org/ok-2"].state is State.WAITING
    assert setting.problem == items["hf://org/ok-2"].reason == "error: the disk is full"


def test_stopping_ends_the_child_and_gives_back_what_it_held(setting: Setting) -> None:
    setting.queue.put(["hf://org/hang-1"], "hub")
    scanner = setting.scanner()
    thread = threading.Thread(target=scanner.run)
    thread.start()
    log = setting.folder / "log"
    deadline = time.monotonic() + 60
    while not log.exists() or not log.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    scanner.stop()
    thread.join(20)
    assert not thread.is_alive()
    with pytest.raises(ProcessLookupError):
        os.kill(int(log.read_text().split()[0]), 0)
    (item,) = setting.queue.take(1)
    assert item.reference == "hf://org/hang-1"


def test_a_queue_that_is_away_is_waited_for(setting: Setting) -> None:
    database = Database(f"sqlite:///{setting.folder / 'queue.sqlite'}")
    with database.writing() as connection:
        connection.exec_driver_sql("ALTER TABLE ftsec_queue RENAME TO away")
    scanner = setting.scanner()
    thread = threading.Thread(target=scanner.run, kwargs={"idle": 0.05})
    thread.start()
    deadline = time.monotonic() + 30
    while not scanner.problem:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert "no such table" in scanner.problem
    with database.writing() as connection:
        connection.exec_driver_sql("ALTER TABLE away RENAME TO ftsec_queue")
    setting.queue.put(["hf://org/ok-1"], "hub")
    while setting.queue.counts()[State.DONE] == 0:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    scanner.stop()
    thread.join(20)
    assert scanner.problem == ""
