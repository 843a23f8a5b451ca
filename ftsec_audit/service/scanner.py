"""Takes what waits in the queue and has it scanned by `batch`, in a child process that ends with this one.

Nothing of a scan happens in the process of the service: no weights are loaded, and it stays small. A child
that is killed, or a service that is, leaves references that are held; they become free and are taken again,
and what was stored of them is found.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ftsec_audit.batch.database import short
from ftsec_audit.batch.index import Index
from ftsec_audit.batch.store import Store
from ftsec_audit.errors import FtsecError
from ftsec_audit.service.queue import Item, Queue

CHILD = (sys.executable, "-m", "ftsec_audit.cli.followed")
_TICK = 0.25  # seconds between two looks at the child
_AT_ONCE = 32
_SOURCE_ATTEMPTS = 3
_PAUSES = (30.0, 300.0)
"""Seconds before a reference that could not be fetched is tried again."""


class Scanner:
    """`options` are those of `ftsec-audit batch`; `told` hears of every reference that is settled."""

    def __init__(
        self,
        queue: Queue,
        store: Store,
        index: Index,
        options: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        told: Callable[[dict[str, Any]], None] | None = None,
        child: Sequence[str] = CHILD,
    ) -> None:
        self._queue, self._store, self._index = queue, store, index
        self._options, self._environment = options, environment
        self._told, self._child = told, child
        self._stopping = threading.Event()
        self._renewed = 0.0
        self._away = self._failed = ""

    @property
    def problem(self) -> str:
        """Why it cannot work now, or why the latest batch did not end as it should; else empty."""
        return self._away or self._failed

    def run(self, *, until_empty: bool = False, idle: float = 1.0) -> None:
        """Scan until `stop`, or until nothing waits. A database that is away is waited for."""
        while not self._stopping.is_set():
            try:
                items = self._queue.take(_AT_ONCE)
                self._away = ""
                if items:
                    self._scan(items)
                elif until_empty:
                    return
            except (FtsecError, OSError, self._queue.error) as error:
                self._away = short(error)
                self._stopping.wait(5 * idle)
            else:
                self._stopping.wait(0 if items else idle)

    def stop(self) -> None:
        """End soon, with a child that is running; what it held is free after a while."""
        self._stopping.set()

    def _scan(self, items: list[Item]) -> None:
        waiting = {item.reference: item for item in items}
        with tempfile.TemporaryDirectory(prefix="ftsec-audit-") as folder:
            events, errors = Path(folder, "events"), Path(folder, "errors")
            command = [*self._child, "batch", *self._options, "--events", str(events), "-q", "--", *waiting]
            with errors.open("wb") as stream:
                child = subprocess.Popen(
                    command,
                    env=self._environment,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    stderr=stream,
                )
            try:
                self._follow(child, events, waiting)
            finally:
                child.kill()
                child.wait()
                assert child.stdin is not None
                child.stdin.close()
            self._conclude(waiting, _last_line(errors))

    def _follow(self, child: subprocess.Popen[bytes], path: Path, waiting: dict[str, Item]) -> None:
        """Settle references as the child tells of them, until it ends."""
        position, ended = 0, False
        while not (ended or self._stopping.is_set()):
            ended = child.poll() is not None  # looked at before the events, so that none is missed
            lines, position = _lines(path, position)
            for line in lines:
                self._settle(json.loads(line), waiting)
            if time.monotonic() - self._renewed > self._queue.hold / 4:
                self._renewed = time.monotonic()
                self._queue.renew(waiting.values())
            if not ended:
                time.sleep(_TICK)

    def _settle(self, event: dict[str, Any], waiting: dict[str, Item]) -> None:
        if event["event"] not in ("done", "failed"):
            return
        self._enter(event["key"])
        for name in event["names"]:
            item = waiting.pop(name, None)
            if item is None:
                continue
            if event["event"] == "done":
                self._queue.done(item, verdict=event["verdict"], key=event["key"])
            elif event["failure"] == "source" and item.taken + 1 < _SOURCE_ATTEMPTS:
                pause = _PAUSES[min(item.taken, len(_PAUSES) - 1)]
                self._queue.give_back(item, after=pause, reason=event["reason"])
            else:
                self._queue.failed(item, f"{event['failure']}: {event['reason']}", key=event["key"])
        if self._told:
            self._told(event)

    def _enter(self, key: str) -> None:
        """Show it at once; the batch itself enters its rows a few hundred at a time."""
        attempts = self._store.failures(key)
        for name in (key, *([f"{key}.failed-{attempts}"] if attempts else [])):
            if record := self._store.get(name):
                self._index.add([record.row()])

    def _conclude(self, waiting: dict[str, Item], complaint: str) -> None:
        """References that the child said nothing about: it failed as a whole, or had to be ended."""
        if self._stopping.is_set():
            for item in waiting.values():
                self._queue.give_back(item, after=0.0)
            return
        self._failed = (complaint or "the batch ended without a result") if waiting else ""
        for item in waiting.values():
            self._queue.give_back(item, after=self._queue.hold * (item.taken + 1), reason=self._failed)


def _lines(path: Path, position: int) -> tuple[list[bytes], int]:
    """Whole lines from `position` on, and the position behind them."""
    try:
        with path.open("rb") as file:
            file.seek(position)
            data = file.read()
    except FileNotFoundError:
        return [], position
    whole = data[: data.rfind(b"\n") + 1]
    return whole.splitlines(), position + len(whole)


def _last_line(path: Path) -> str:
    with path.open("rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - 4096))
        lines = file.read().decode("utf-8", "replace").strip().splitlines()
    return lines[-1] if lines else ""
