"""What is wanted and not yet scanned: a table, so that no restart loses it.

A reference stands in it once. Whoever takes it holds it for a while and renews the hold while it works; the
hold of a process that was killed runs out, and the reference is taken again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from ftsec_audit.batch.database import Database, Layout, short
from ftsec_audit.errors import UsageError

if TYPE_CHECKING:
    from sqlalchemy import Connection

_LAYOUT = 1
_MAX_REFERENCE = 500
_REMEMBERED = 3600.0
"""Seconds; a delivery is refused for its age long before."""
_MOST_TAKEN = 10
"""A reference that was taken so often and never settled brings down whoever takes it."""


class State(StrEnum):
    WAITING = "waiting"
    TAKEN = "taken"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True)
class Item:
    """A reference in the queue, and what became of it."""

    id: int
    reference: str
    origin: str
    """`hub`, `mlflow`, `api` or `watch`."""
    state: State
    taken: int = 0
    """How often."""
    queued_at: float = 0.0
    finished_at: float = 0.0
    free_at: float = 0.0
    """When it may be taken, or taken again. Seconds since 1970, as all times here."""
    verdict: str = ""
    """By the policy of the scan."""
    key: str = ""
    """Of the document in the store."""
    reason: str = ""
    """Why there is no report."""


class Queue:
    """Raises UsageError where the database cannot be had."""

    def __init__(self, url: str, *, hold: float = 15.0, clock: Callable[[], float] = time.time) -> None:
        self.hold = hold
        self._clock = clock
        self._database = Database(url)
        self.error = self._database.error
        self._metadata, self._items, self._deliveries, self._watches = _tables(self._database)
        try:
            Layout(note="ftsec_queue_layout", number=_LAYOUT, tables=self._metadata).prepare(self._database)
        except self._database.error as error:
            raise UsageError(short(error), where="queue") from error

    def put(
        self, references: Iterable[str], origin: str, *, again: bool = False, delivery: str = ""
    ) -> list[str]:
        """Enter references; returns those that wait now and did not before.

        One that waits or is being scanned stays as it is, and so does one that is done, unless `again`.
        With a `delivery` all of it happens once: raises Replayed when that delivery was seen before.
        """
        entered = []
        with self._database.writing() as connection:
            if delivery and not self._is_first(connection, delivery):
                raise Replayed(delivery)
            for reference in dict.fromkeys(references):
                if not reference or len(reference) > _MAX_REFERENCE or not reference.isprintable():
                    raise UsageError("the reference is empty, too long or not printable", where="queue")
                if self._enter(connection, reference, origin, again=again):
                    entered.append(reference)
        return entered

    def take(self, most: int) -> list[Item]:
        """The oldest that are free; they are held until `hold` seconds from now, or from `renew`."""
        sql, table, now = self._database.sql, self._items, self._clock()
        free = sql.and_(table.c.state.in_((State.WAITING, State.TAKEN)), table.c.free_at <= now)
        query = sql.select(table).where(free).order_by(table.c.queued_at, table.c.id).limit(most)
        with self._database.writing() as connection:
            rows = connection.execute(query.with_for_update(skip_locked=True)).mappings()
            found = [_item(row) for row in rows]
            for item in [item for item in found if item.taken >= _MOST_TAKEN]:
                reason = f"given up: taken {item.taken} times and never settled"
                self._set(connection, [item.id], state=State.FAILED, finished_at=now, reason=reason)
                found.remove(item)
            values = {"state": State.TAKEN, "taken": table.c.taken + 1, "free_at": now + self.hold}
            self._set(connection, [item.id for item in found], **values)
        return found

    def renew(self, items: Iterable[Item]) -> None:
        with self._database.writing() as connection:
            self._set(connection, [item.id for item in items], free_at=self._clock() + self.hold)

    def done(self, item: Item, *, verdict: str, key: str) -> None:
        self._settle(item, state=State.DONE, verdict=verdict, key=key, reason="")

    def failed(self, item: Item, reason: str, *, key: str = "") -> None:
        self._settle(item, state=State.FAILED, verdict="", key=key, reason=reason[:1000])

    def give_back(self, item: Item, *, after: float, reason: str = "") -> None:
        """Have it taken again, in `after` seconds at the earliest."""
        values = {"state": State.WAITING, "free_at": self._clock() + after, "reason": reason[:1000]}
        with self._database.writing() as connection:
            self._set(connection, [item.id], **values)

    def counts(self) -> dict[State, int]:
        """How many there are in each state; raises UsageError."""
        sql, table = self._database.sql, self._items
        query = sql.select(table.c.state, sql.func.count()).group_by(table.c.state)
        found = {row[0]: row[1] for row in self._read(query)}
        return {state: found.get(str(state), 0) for state in State}

    def oldest(self) -> float:
        """For how many seconds the first in line has been waiting; 0 when nothing does."""
        sql, table = self._database.sql, self._items
        query = sql.select(sql.func.min(table.c.queued_at)).where(table.c.state == State.WAITING)
        (row,) = self._read(query)
        return max(0.0, self._clock() - row[0]) if row[0] else 0.0

    def recent(self, limit: int = 100) -> list[Item]:
        """Unfinished ones first, then the latest that were finished; raises UsageError."""
        sql, table = self._database.sql, self._items
        finished = sql.case((table.c.state.in_((State.WAITING, State.TAKEN)), 0), else_=1)
        order = (finished, table.c.finished_at.desc(), table.c.queued_at, table.c.id)
        return [_item(row._mapping) for row in self._read(sql.select(table).order_by(*order).limit(limit))]

    def watched(self, query: str) -> str:
        """Up to when the Hub was searched for `query`, as `watch_until` was told; empty at first."""
        table = self._watches
        found = self._read(self._database.sql.select(table.c.until).where(table.c.watched == query))
        return str(found[0][0]) if found else ""

    def watch_until(self, query: str, until: str) -> None:
        with self._database.writing() as connection:
            self._database.insert_new(connection, self._watches, [{"watched": query, "until": until}])
            table = self._watches
            connection.execute(table.update().where(table.c.watched == query).values(until=until))

    def close(self) -> None:
        self._database.close()

    def _is_first(self, connection: Connection, delivery: str) -> bool:
        sql, table = self._database.sql, self._deliveries
        if connection.scalar(sql.select(sql.func.count()).where(table.c.delivery == delivery)):
            return False
        now = self._clock()
        connection.execute(table.delete().where(table.c.seen_at < now - _REMEMBERED))
        connection.execute(table.insert(), [{"delivery": delivery, "seen_at": now}])
        return True

    def _enter(self, connection: Connection, reference: str, origin: str, *, again: bool) -> bool:
        sql, table, now = self._database.sql, self._items, self._clock()
        fresh = {"state": State.WAITING, "origin": origin, "queued_at": now, "free_at": now, "taken": 0}
        fresh |= {"finished_at": 0.0, "verdict": "", "key": "", "reason": ""}
        found = connection.execute(
            sql.select(table.c.id, table.c.state).where(table.c.reference == reference).with_for_update()
        ).first()
        if found is None:
            self._database.insert_new(connection, table, [{"reference": reference, **fresh}])
            return True
        if found[1] == State.FAILED or (again and found[1] == State.DONE):
            self._set(connection, [found[0]], **fresh)
            return True
        return False

    def _settle(self, item: Item, **values: Any) -> None:
        with self._database.writing() as connection:
            self._set(connection, [item.id], finished_at=self._clock(), **values)

    def _set(self, connection: Connection, ids: Sequence[int], **values: Any) -> None:
        if ids:
            connection.execute(self._items.update().where(self._items.c.id.in_(ids)).values(**values))

    def _read(self, query: Any) -> list[Any]:
        try:
            with self._database.reading() as connection:
                return list(connection.execute(query))
        except self._database.error as error:
            raise UsageError(short(error), where="queue") from error


class Replayed(Exception):
    """A delivery came a second time."""


def _tables(database: Database) -> tuple[Any, Any, Any, Any]:
    sql = database.sql
    metadata = sql.MetaData()
    items = sql.Table(
        "ftsec_queue",
        metadata,
        sql.Column("id", sql.Integer, primary_key=True),
        sql.Column("reference", sql.String(_MAX_REFERENCE), unique=True, nullable=False),
        sql.Column("state", sql.String(10), index=True, nullable=False),
        sql.Column("taken", sql.Integer, nullable=False),
        *(sql.Column(name, sql.Float, nullable=False) for name in ("queued_at", "finished_at", "free_at")),
        *(sql.Column(name, sql.Text) for name in ("origin", "verdict", "key", "reason")),
    )
    deliveries = sql.Table(
        "ftsec_deliveries",
        metadata,
        sql.Column("delivery", sql.String(200), primary_key=True),
        sql.Column("seen_at", sql.Float, index=True),
    )
    watches = sql.Table(
        "ftsec_watches",
        metadata,
        sql.Column("watched", sql.Text, primary_key=True),
        sql.Column("until", sql.Text),
    )
    return metadata, items, deliveries, watches


def _item(found: Any) -> Item:
    return Item(**{**found, "state": State(found["state"])})
