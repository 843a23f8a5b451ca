"""SQLite and PostgreSQL by URL, alike: transactions that cover tables too, and layouts that move on.

Passwords belong into the URL by way of the environment (`FTSEC_AUDIT_INDEX`) or `~/.pgpass`; no message
repeats a URL.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ftsec_audit.errors import UsageError

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine, MetaData

_PATIENCE = 30  # seconds that a writer waits for another one
_CONNECT = 10  # seconds


class Database:
    """Raises UsageError where the packages for it are missing, or the URL names no such database."""

    def __init__(self, url: str) -> None:
        try:
            import sqlalchemy
        except ImportError as error:
            raise UsageError("needs SQLAlchemy", hint="pip install 'ftsec-audit[batch]'") from error
        self.sql = sqlalchemy
        self.error = sqlalchemy.exc.SQLAlchemyError
        try:
            parsed = sqlalchemy.make_url(url)
            self.kind = _kind(parsed.get_backend_name())
            self._engine = self._sqlite(parsed) if self.kind == "sqlite" else self._postgresql(parsed)
        except ImportError as error:
            raise UsageError(
                f"needs a driver for it: {short(error)}", hint="pip install 'ftsec-audit[postgres]'"
            ) from error
        except self.error as error:
            raise UsageError(short(error), where="database") from error
        self._writer = self._engine.execution_options(writes=True)

    def writing(self) -> AbstractContextManager[Connection]:
        """A transaction: all of it is there at its end, or nothing; also of what it does to tables."""
        return self._writer.begin()

    def reading(self) -> AbstractContextManager[Connection]:
        return self._engine.connect()

    @contextmanager
    def migrating(self) -> Iterator[Connection]:
        """A transaction in which no other process migrates."""
        with self.writing() as connection:
            if self.kind == "postgresql":
                connection.execute(self.sql.select(self.sql.func.pg_advisory_xact_lock(0x66747365)))
            yield connection

    def insert_new(self, connection: Connection, table: Any, values: list[dict[str, Any]]) -> None:
        """Insert rows; those whose key is there already stay as they are."""
        from sqlalchemy.dialects import postgresql, sqlite

        dialect: Any = sqlite if self.kind == "sqlite" else postgresql
        if values:
            connection.execute(dialect.insert(table).on_conflict_do_nothing(), values)

    def close(self) -> None:
        self._engine.dispose()

    def _sqlite(self, url: Any) -> Engine:
        engine = self.sql.create_engine(url, connect_args={"timeout": _PATIENCE})

        # The driver would begin transactions late and leave table definitions out of them.
        def connected(connection: Any, _record: Any) -> None:
            connection.isolation_level = None

        def begun(connection: Connection) -> None:
            writes = connection.get_execution_options().get("writes")
            connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

        self.sql.event.listen(engine, "connect", connected)
        self.sql.event.listen(engine, "begin", begun)
        return engine

    def _postgresql(self, url: Any) -> Engine:
        """Connections that a restart of the server has cut are replaced when they are next needed."""
        if url.drivername in ("postgres", "postgresql"):
            url = url.set(drivername="postgresql+psycopg")
        arguments = {"connect_timeout": _CONNECT, "application_name": "ftsec-audit"}
        return self.sql.create_engine(url, pool_pre_ping=True, connect_args=arguments)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The tables that a program expects, and how earlier ones become these."""

    note: str
    """Table that holds the number."""
    number: int
    steps: Mapping[int, Callable[[Database, Connection], None]] = field(default_factory=dict)
    """By the number they start from; where one is missing, the tables are dropped and made anew."""
    tables: MetaData

    def prepare(self, database: Database) -> None:
        """Create, migrate or replace the tables, in one transaction; raises UsageError for newer ones."""
        sql = database.sql
        note = sql.Table(self.note, sql.MetaData(), sql.Column("layout", sql.Integer, primary_key=True))
        with database.migrating() as connection:
            note.create(connection, checkfirst=True)
            found = max(connection.scalars(sql.select(note.c.layout)), default=0)
            if found > self.number:
                raise UsageError(
                    f"these tables have layout {found}, written by a newer version; this one knows "
                    f"{self.number}",
                    where="database",
                    hint="upgrade, or name another database",
                )
            if found != self.number:
                self._migrate(database, connection, found)
                connection.execute(note.delete())
                connection.execute(note.insert(), [{"layout": self.number}])
            self.tables.create_all(connection)

    def _migrate(self, database: Database, connection: Connection, found: int) -> None:
        if all(step in self.steps for step in range(found, self.number)):
            for step in range(found, self.number):
                self.steps[step](database, connection)
        else:
            self.tables.drop_all(connection)


def short(error: Exception) -> str:
    """The first line of an error of the database, without the statement and its values."""
    return str(getattr(error, "orig", None) or error).strip().splitlines()[0][:300]


def _kind(backend: str) -> str:
    kinds = {"sqlite": "sqlite", "postgresql": "postgresql", "postgres": "postgresql"}
    if backend not in kinds:
        raise UsageError(f"{backend} is not supported", hint="use sqlite:///FILE or postgresql://HOST/NAME")
    return kinds[backend]
