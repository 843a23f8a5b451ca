"""Stored documents in a database, to be searched; rebuilt from the documents at any time.

One row per document and one per detection in it. SQLite beside the documents by default; any other
database that SQLAlchemy reaches, by URL. An index of another layout is dropped and filled anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from ftsec_audit.batch.job import Detected, FailureKind, Row
from ftsec_audit.errors import UsageError
from ftsec_audit.types import Profile, Severity, Verdict

if TYPE_CHECKING:
    from sqlalchemy import Connection, Select

    from ftsec_audit.batch.store import Store

_LAYOUT = 1
_AT_ONCE = 200
_NUMBERS = {"size": "BigInteger", "memory": "BigInteger", "seconds": "Float", "suspicion": "Float"}


@dataclass(frozen=True, kw_only=True)
class Filter:
    """Which documents are wanted; the default is every report."""

    failed: bool = False
    """The latest failure of each artifact that has no report, instead of reports."""
    verdict: Verdict | None = None
    since: str = ""
    """UTC, as in `Row.scanned_at`, or the start of it."""
    rule: str = ""
    """Id, or the start of one, of a rule that was detected."""
    limit: int | None = None


class Index:
    """Raises UsageError where SQLAlchemy, or the database, cannot be had."""

    def __init__(self, url: str) -> None:
        try:
            import sqlalchemy
        except ImportError as error:
            raise UsageError("needs SQLAlchemy", hint="pip install 'ftsec-audit[batch]'") from error
        self._sql = sqlalchemy
        try:
            options = {"connect_args": {"timeout": 30}} if url.startswith("sqlite") else {}
            self._engine = sqlalchemy.create_engine(url, **options)
            self._documents, self._detections = _tables()
            with self._engine.begin() as connection:
                self._prepare(connection)
        except (sqlalchemy.exc.SQLAlchemyError, ImportError) as error:
            raise UsageError(_short(error), where="index") from error

    def add(self, rows: Sequence[Row]) -> str:
        """Enter rows that are not there yet; returns what went wrong, or nothing."""
        try:
            with self._engine.begin() as connection:
                self._enter(connection, rows)
        except self._sql.exc.SQLAlchemyError as error:
            return _short(error)
        return ""

    def sync(self, store: Store) -> list[str]:
        """Enter every document of the store that is missing, drop what the store no longer has.

        Returns what is wrong with documents that could not be read.
        """
        present, damaged = set(store.names()), []
        pending: list[Row] = []
        try:
            with self._engine.begin() as connection:
                known = set(connection.scalars(self._sql.select(self._documents.c.name)))
                for gone in _chunks(sorted(known - present)):
                    self._drop(connection, gone)
            for name in sorted(present - known):
                try:
                    if record := store.get(name):
                        pending.append(record.row())
                except UsageError as error:
                    damaged.append(str(error))
                if len(pending) >= _AT_ONCE:
                    self._commit(pending)
            self._commit(pending)
        except self._sql.exc.SQLAlchemyError as error:
            raise UsageError(_short(error), where="index") from error
        return damaged

    def rows(self, wanted: Filter) -> Iterator[Row]:
        """The most suspicious first; of failures, the latest."""
        with self._engine.connect() as connection:
            for found in connection.execute(self._query(wanted)).mappings().all():
                yield _row(found, self._detected(connection, found["name"]))

    def _commit(self, rows: list[Row]) -> None:
        with self._engine.begin() as connection:
            self._enter(connection, rows)
        rows.clear()

    def _enter(self, connection: Connection, rows: Sequence[Row]) -> None:
        column = self._documents.c.name
        for chunk in _chunks(rows):
            names = [row.name for row in chunk]
            known = set(connection.scalars(self._sql.select(column).where(column.in_(names))))
            fresh = {row.name: row for row in chunk if row.name not in known}.values()
            if fresh:
                connection.execute(self._documents.insert(), [_values(row) for row in fresh])
            detected = [
                {"name": row.name, "position": position, **_storable(asdict(one))}
                for row in fresh
                for position, one in enumerate(row.detected)
            ]
            if detected:
                connection.execute(self._detections.insert(), detected)

    def _drop(self, connection: Connection, names: Sequence[str]) -> None:
        for table in (self._detections, self._documents):
            connection.execute(table.delete().where(table.c.name.in_(names)))

    def _query(self, wanted: Filter) -> Select[Any]:
        sql, table, detections = self._sql, self._documents, self._detections
        query: Select[Any] = sql.select(table)
        if wanted.failed:
            other = table.alias()
            settled = sql.select(other.c.key).where(
                other.c.key == table.c.key,
                sql.or_(other.c.failure == "", other.c.attempt > table.c.attempt),
            )
            query = query.where(table.c.failure != "", ~settled.exists())
            query = query.order_by(table.c.scanned_at.desc(), table.c.name)
        else:
            query = query.where(table.c.failure == "")
            query = query.order_by(sql.func.coalesce(table.c.suspicion, -1).desc(), table.c.name)
        if wanted.verdict:
            query = query.where(table.c.verdict == str(wanted.verdict))
        if wanted.since:
            query = query.where(table.c.scanned_at >= wanted.since)
        if wanted.rule:
            rules = sql.select(detections.c.name).where(
                detections.c.rule.startswith(wanted.rule, autoescape=True)
            )
            query = query.where(table.c.name.in_(rules))
        if wanted.limit is not None:
            query = query.limit(wanted.limit)
        return query

    def _detected(self, connection: Connection, name: str) -> tuple[Detected, ...]:
        table = self._detections
        query = self._sql.select(table).where(table.c.name == name).order_by(table.c.position)
        return tuple(
            Detected(
                rule=found["rule"],
                severity=Severity(found["severity"]),
                confidence=found["confidence"],
                summary=found["summary"],
            )
            for found in connection.execute(query).mappings()
        )

    def _prepare(self, connection: Connection) -> None:
        """Create the tables, or replace those of another layout."""
        sql = self._sql
        note = sql.Table("ftsec_layout", sql.MetaData(), sql.Column("layout", sql.Integer, primary_key=True))
        note.create(connection, checkfirst=True)
        layouts = set(connection.scalars(sql.select(note.c.layout)))
        if layouts != {_LAYOUT}:
            self._documents.metadata.drop_all(connection)
            connection.execute(note.delete())
            connection.execute(note.insert(), [{"layout": _LAYOUT}])
        self._documents.metadata.create_all(connection)


def _tables() -> tuple[Any, Any]:
    import sqlalchemy as sql

    metadata = sql.MetaData()
    searched = ("key", "verdict", "scanned_at", "failure", "suspicion")
    columns = [
        sql.Column(name, getattr(sql, _NUMBERS.get(name, "Text")), index=name in searched)
        for name in (field.name for field in fields(Row) if field.name not in ("name", "detected"))
    ]
    documents = sql.Table(
        "ftsec_documents",
        metadata,
        sql.Column("name", sql.String(100), primary_key=True),
        sql.Column("attempt", sql.Integer, nullable=False),
        *columns,
    )
    detections = sql.Table(
        "ftsec_detections",
        metadata,
        sql.Column("name", sql.String(100), sql.ForeignKey(documents.c.name), primary_key=True),
        sql.Column("position", sql.Integer, primary_key=True),
        sql.Column("rule", sql.Text, index=True),
        *(sql.Column(name, sql.Text) for name in ("severity", "confidence", "summary")),
    )
    return documents, detections


def _values(row: Row) -> dict[str, Any]:
    values = {field.name: getattr(row, field.name) for field in fields(row) if field.name != "detected"}
    texts = {name: str(values[name] or "") for name in ("verdict", "failure", "profile")}
    _, _, attempt = row.name.partition(".failed-")
    return _storable(values | texts) | {"attempt": int(attempt or 0)}


def _storable(values: dict[str, Any]) -> dict[str, Any]:
    """Text of artifacts without what databases refuse: zero bytes, halves of surrogate pairs."""
    return {
        name: str(value).encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")
        if isinstance(value, str)
        else value
        for name, value in values.items()
    }


def _row(found: Any, detected: tuple[Detected, ...]) -> Row:
    values = {key: value for key, value in found.items() if key != "attempt"}
    values["verdict"] = Verdict(found["verdict"]) if found["verdict"] else None
    values["failure"] = FailureKind(found["failure"]) if found["failure"] else None
    values["profile"] = Profile(found["profile"]) if found["profile"] else None
    return Row(**values, detected=detected)


def _chunks(items: Sequence[Any]) -> Iterable[Sequence[Any]]:
    return (items[start : start + _AT_ONCE] for start in range(0, len(items), _AT_ONCE))


def _short(error: Exception) -> str:
    return str(error).splitlines()[0][:300]
