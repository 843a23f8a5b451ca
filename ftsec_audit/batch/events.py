"""What a run tells while it goes: to a person as progress, to a program as JSON lines."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any, TextIO

from ftsec_audit.batch.work import now
from ftsec_audit.contracts import Progress

if TYPE_CHECKING:
    from ftsec_audit.batch.job import Done
    from ftsec_audit.batch.plan import BatchPlan
    from ftsec_audit.batch.summary import Summary

_NOTED_EVERY, _DRAWN_EVERY = 10.0, 0.25  # seconds


class Observer:
    """Passes events on to a progress display and, one JSON object per line, to `events`."""

    def __init__(self, progress: Progress | None = None, events: TextIO | None = None) -> None:
        self._progress, self._events = progress or Progress(), events
        self._noted, self._drawn = time.monotonic(), 0.0

    def planned(self, plan: BatchPlan) -> None:
        self._emit(
            "planned",
            artifacts=len(plan.jobs),
            references=plan.references,
            duplicates=plan.duplicates,
            unresolved=len(plan.unresolved),
            bases=len(plan.bases),
            bytes=plan.bytes,
        )

    def scanning(self, jobs: int) -> None:
        self._progress.start("scan", jobs, "artifacts")

    def done(self, done: Done, summary: Summary) -> None:
        row = done.row
        assert row is not None
        self._emit(
            "failed" if row.failure else "done",
            reference=row.reference,
            key=row.key,
            names=done.job.names,
            verdict=done.verdict,
            failure=row.failure,
            reason=row.reason,
            seconds=row.seconds,
            earlier=done.earlier,
        )
        self._progress.advance()
        if time.monotonic() - self._drawn > _DRAWN_EVERY:
            self._drawn = time.monotonic()
            self._progress.figures(summary.figures())
        if time.monotonic() - self._noted > _NOTED_EVERY:
            self._noted = time.monotonic()
            self._progress.note(summary.progress())

    def passed_on(self, done: Done) -> None:
        """Its first answers are there, and more is asked of it."""
        row = done.row
        assert row is not None
        self._emit(
            "triaged", reference=row.reference, key=row.key, names=done.job.names, earlier=done.earlier
        )
        self._progress.advance()

    def note(self, message: str) -> None:
        self._emit("note", message=message)
        self._progress.note(message)

    def finished(self, summary: Summary) -> None:
        self._emit("finished", **summary.document())

    def _emit(self, event: str, **values: Any) -> None:
        if self._events is not None:
            self._events.write(json.dumps({"event": event, "at": now(), **values}) + "\n")
            self._events.flush()
