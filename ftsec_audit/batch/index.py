"""Stored documents in a database, to be searched; rebuilt from the documents at any time.

SQLite beside the documents by default, PostgreSQL by URL. What a database could not take, because it was
killed or could not be reached, is entered by the next `sync`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ftsec_audit.batch import index_tables
from ftsec_audit.batch.database import Database, short
from ftsec_audit.batch.index_tables import Tables
from ftsec_audit.batch.job import Detected, Row
from ftsec_audit.errors import UsageError
from ftsec_audit.types import Verdict

if TYPE_CHECKING:
    from sqlalchemy import Connection, Select

    from ftsec_audit.batch.store import Store

_AT_ONCE = 200


@dataclass(frozen=True, kw_only=True)
class Filter:
    """Which documents are wanted; the default is every report."""

    failed: bool | None = False
    """Instead of reports, the latest failure of each artifact that has none; None: everything there is."""
    verdict: Verdict | None = None
    since: str = ""
    """UTC, as in `Row.scanned_at`, or the start of it."""
    rule: str = ""
    """Id, or the start of one, of a rule that was detected."""
    text: str = ""
    """Part of the repository's name, the base's or the description, in any case of letters."""
    repository: str = ""
    """As in `Row.repository`."""
    latest_first: bool = False
    """Instead of the most suspicious; failures always stand so."""
    offset: int = 0
    limit: int | None = None


class Index:
    """Raises UsageError where the database, or the packages for it, cannot be had."""

    def __init__(self, url: str) -> None:
        self._database = Database(url)
        self._sql = self._database.sql
        self._tables = Tables(self._database)
        try:
            self._tables.layout.prepare(self._database)
        except self._database.error as error:
            raise UsageError(short(error), where="index") from error

    def add(self, rows: Sequence[Row]) -> str:
        """Enter rows that are not there yet; returns what went wrong, or nothing."""
        try:
            self._commit(rows)
        except self._database.error as error:
            return short(error)
        return ""

    def sync(self, store: Store) -> list[str]:
        """Enter every document of the store that is missing, drop what the store no longer has.

        Returns what is wrong with documents that could not be read.
        """
        present, damaged = set(store.names()), []
        pending: list[Row] = []
        try:
            known = self._names()
            for gone in _chunks(sorted(known - present)):
                self._drop(gone)
            for name in sorted(present - known):
                try:
                    if record := store.get(name):
                        pending.append(record.row())
                except UsageError as error:
                    damaged.append(str(error))
                if len(pending) >= _AT_ONCE:
                    self._commit(pending)
                    pending.clear()
            self._commit(pending)
        except self._database.error as error:
            raise UsageError(short(error), where="index") from error
        return damaged

    def rows(self, wanted: Filter) -> Iterator[Row]:
        """The most suspicious, or the latest, first. Holds no lock between two rows; raises UsageError."""
        try:
            with self._database.reading() as connection:
                names = list(connection.scalars(self._query(wanted)))
            for chunk in _chunks(names):
                with self._database.reading() as connection:
                    found = self._read(connection, chunk)
                yield from (found[name] for name in chunk if name in found)
        except self._database.error as error:
            raise UsageError(short(error), where="index") from error

    def count(self, wanted: Filter) -> int:
        """How many there are, whatever `offset` and `limit` say; raises UsageError."""
        sql = self._sql
        matching = sql.select(self._tables.documents.c.name).where(*self._conditions(wanted)).subquery()
        try:
            with self._database.reading() as connection:
                return int(connection.scalar(sql.select(sql.func.count()).select_from(matching)) or 0)
        except self._database.error as error:
            raise UsageError(short(error), where="index") from error

    def verdicts(self) -> dict[Verdict, int]:
        """How many reports there are of each verdict; raises UsageError."""
        sql, table = self._sql, self._tables.documents
        query = sql.select(table.c.verdict, sql.func.count()).where(table.c.failure == "")
        try:
            with self._database.reading() as connection:
                found = {row[0]: row[1] for row in connection.execute(query.group_by(table.c.verdict))}
        except self._database.error as error:
            raise UsageError(short(error), where="index") from error
        return {verdict: found.get(str(verdict), 0) for verdict in Verdict}

    def close(self) -> None:
        self._database.close()

    def _names(self) -> set[str]:
        with self._database.reading() as connection:
            return set(connection.scalars(self._sql.select(self._tables.documents.c.name)))

    def _commit(self, rows: Sequence[Row]) -> None:
        if not rows:
            return
        tables, insert = self._tables, self._database.insert_new
        with self._database.writing() as connection:
            for chunk in _chunks(list({row.name: row for row in rows}.values())):
                insert(connection, tables.documents, [index_tables.document(row) for row in chunk])
                found = [each for row in chunk for each in index_tables.detections(row)]
                insert(connection, tables.detections, found)

    def _drop(self, names: Sequence[str]) -> None:
        with self._database.writing() as connection:
            for table in (self._tables.detections, self._tables.documents):
                connection.execute(table.delete().where(table.c.name.in_(names)))

    def _read(self, connection: Connection, names: Sequence[str]) -> dict[str, Row]:
        sql, documents, detections = self._sql, self._tables.documents, self._tables.detections
        by_name: dict[str, list[Detected]] = defaultdict(list)
        query = sql.select(detections).where(detections.c.name.in_(names)).order_by(detections.c.position)
        for found in connection.execute(query).mappings():
            by_name[found["name"]].append(index_tables.detected(found))
        query = sql.select(documents).where(documents.c.name.in_(names))
        return {
            found["name"]: index_tables.row(found, by_name[found["name"]])
            for found in connection.execute(query).mappings()
        }

    def _query(self, wanted: Filter) -> Select[Any]:
        """Names, in order."""
        table = self._tables.documents
        query = self._sql.select(table.c.name).where(*self._conditions(wanted))
        by_time = wanted.failed or wanted.latest_first
        query = query.order_by(table.c.scanned_at.desc() if by_time else table.c.rank.desc(), table.c.name)
        window: Select[Any] = query.limit(wanted.limit).offset(wanted.offset or None)
        return window

    def _conditions(self, wanted: Filter) -> Iterator[Any]:
        sql, table, detections = self._sql, self._tables.documents, self._tables.detections
        if wanted.failed:
            other = table.alias()
            settled = sql.select(other.c.key).where(
                other.c.key == table.c.key,
                sql.or_(other.c.failure == "", other.c.attempt > table.c.attempt),
            )
            yield table.c.failure > ""  # a range of an index, which `!=` is not
            yield ~settled.exists()
        elif wanted.failed is False:
            yield table.c.failure == ""
        if wanted.verdict:
            yield table.c.verdict == str(wanted.verdict)
        if wanted.since:
            yield table.c.scanned_at >= wanted.since
        if wanted.rule:
            rule = detections.c.rule.startswith(wanted.rule, autoescape=True)
            yield table.c.name.in_(sql.select(detections.c.name).where(rule))
        if wanted.repository:
            yield table.c.repository == index_tables.listed_repository(wanted.repository)
        if wanted.text:
            yield table.c.searched.contains(wanted.text.casefold(), autoescape=True)


def _chunks(items: Sequence[Any]) -> Iterable[Sequence[Any]]:
    return (items[start : start + _AT_ONCE] for start in range(0, len(items), _AT_ONCE))
