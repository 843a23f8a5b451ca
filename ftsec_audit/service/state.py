"""Everything the service is made of, put together once and handed to the routes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ftsec_audit.batch.index import Index
from ftsec_audit.batch.store import Store
from ftsec_audit.errors import FtsecError
from ftsec_audit.service.credentials import Credentials
from ftsec_audit.service.metrics import Metrics
from ftsec_audit.service.queue import Queue

if TYPE_CHECKING:
    from threading import Event

    from ftsec_audit.service.scanner import Scanner


@dataclass(kw_only=True)
class Service:
    """What a route needs to know."""

    store: Store
    index: Index
    queue: Queue
    credentials: Credentials
    hub_secret: str = ""
    """Empty: there is no such webhook."""
    mlflow_secret: str = ""
    allow_scan: bool = False
    """Whether whoever is signed in may enter references into the queue."""
    scanner: Scanner | None = None
    """None: this process only shows, and receives."""
    is_scanning: Callable[[], bool] = lambda: True
    """Whether the thread of the scanner is alive."""
    metrics: Metrics = field(init=False)

    def __post_init__(self) -> None:
        self.metrics = Metrics(self.queue, self.index)

    def problems(self) -> dict[str, str]:
        """What keeps it from working, by part; empty when everything answers."""
        found = {}
        for part, ask in {
            "queue": self.queue.counts,
            "index": self.index.verdicts,
            "store": self._look,
        }.items():
            try:
                ask()
            except (FtsecError, OSError) as error:
                found[part] = str(error)
        if self.scanner and not self.is_scanning():
            found["scanner"] = "its thread has ended"
        elif self.scanner and self.scanner.problem:
            found["scanner"] = self.scanner.problem
        return found

    def catch_up(self, stopping: Event, *, every: float, told: Callable[[str], None]) -> None:
        """Enter what other processes store, again and again, until `stopping`."""
        while not stopping.is_set():
            try:
                for damage in self.index.sync(self.store):
                    told(damage)
            except (FtsecError, OSError) as error:
                told(f"not caught up with the store: {error}")
            stopping.wait(every)

    def _look(self) -> None:
        self.store.has("0" * 64)
        if "://" not in self.store.url and not Path(self.store.url).is_dir():
            raise FtsecError("no such folder", where=self.store.url)


def now() -> float:
    return time.time()
