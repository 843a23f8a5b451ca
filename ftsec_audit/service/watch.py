"""Asks the Hub again and again what was uploaded, and enters it into the queue."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from threading import Event

from ftsec_audit.errors import SourceError
from ftsec_audit.service.queue import Queue
from ftsec_audit.sources.connection import Connection
from ftsec_audit.sources.search import HubQuery, search

_OVERLAP = timedelta(minutes=10)
"""Looked at twice: lists of the Hub lag, and clocks differ. The queue takes a commit once."""


class Watch:
    """One query; up to when it was answered is kept beside the queue, so that a pause loses nothing."""

    def __init__(self, queue: Queue, query: HubQuery, connect: Callable[[], Connection]) -> None:
        self._queue, self._query, self._connect = queue, query, connect
        content = [query.author, query.base_model, *sorted(query.filters)]
        self._name = hashlib.sha256("\0".join(content).encode()).hexdigest()

    def poll(self, *, now: datetime | None = None) -> list[str]:
        """References that wait now because of what was uploaded since the last time. Raises SourceError."""
        asked_at = now or datetime.now(UTC)
        until = self._queue.watched(self._name)
        since = datetime.fromisoformat(until) if until else (self._query.since or asked_at)
        found = search(self._connect(), replace(self._query, since=since - _OVERLAP))
        entered = self._queue.put(found, "watch")
        self._queue.watch_until(self._name, asked_at.isoformat())
        return entered

    def run(self, stopping: Event, *, every: float, told: Callable[[str], None]) -> None:
        """Poll until `stopping`; a Hub that is away is asked again the next time."""
        while not stopping.is_set():
            try:
                entered = self.poll()
                told(f"{len(entered):,} new")
            except SourceError as error:
                told(f"not asked: {error}")
            stopping.wait(every)
