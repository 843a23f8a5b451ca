"""The tables of the index, and how those of earlier versions become these."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from ftsec_audit.batch.database import Database, Layout
from ftsec_audit.batch.job import Detected, FailureKind, Row, repository
from ftsec_audit.types import Profile, Severity, Verdict

if TYPE_CHECKING:
    from sqlalchemy import Connection

_LAYOUT = 3
_NUMBERS = {"size": "BigInteger", "memory": "BigInteger", "seconds": "Float", "suspicion": "Float"}
_OWN = ("name", "attempt", "repository", "rank", "searched")
_LONGEST = 400
"""Characters of `repository` and `searched`; PostgreSQL refuses entries of an index beyond 2,700 bytes."""
_EARLIER_INDEXES = ("key", "verdict", "scanned_at", "repository", "rank", "suspicion", "failure")
_AT_ONCE = 1000


class Tables:
    """One row per document, one per detection in it.

    A list is read from one index, its order and what it is filtered by included: each row that is looked up
    in the table itself costs a page of the file.
    """

    def __init__(self, database: Database) -> None:
        sql = database.sql
        self.metadata = sql.MetaData()
        columns = [
            sql.Column(name, getattr(sql, _NUMBERS.get(name, "Text")))
            for name in (field.name for field in fields(Row) if field.name not in ("name", "detected"))
        ]
        self.documents = sql.Table(
            "ftsec_documents",
            self.metadata,
            sql.Column("name", sql.String(100), primary_key=True),
            sql.Column("attempt", sql.Integer, nullable=False),
            *columns,
            sql.Column("repository", sql.Text),
            sql.Column("rank", sql.Float),
            sql.Column("searched", sql.Text),
        )
        of = self.documents.c
        best, latest = of.rank.desc(), of.scanned_at.desc()
        for name, parts in {
            "rank": (of.failure, best, of.name, of.searched),
            "verdict": (of.failure, of.verdict, best, of.name),
            "scanned_at": (of.failure, latest, of.name, of.rank),
            "repository": (of.repository, of.failure, best, of.name),
            "key": (of.key, of.failure, of.attempt),
        }.items():
            sql.Index(f"ix_ftsec_documents_{name}", *parts)
        self.detections = sql.Table(
            "ftsec_detections",
            self.metadata,
            sql.Column("name", sql.String(100), sql.ForeignKey(self.documents.c.name), primary_key=True),
            sql.Column("position", sql.Integer, primary_key=True),
            *(sql.Column(name, sql.Text) for name in ("rule", "severity", "confidence", "summary")),
        )
        sql.Index("ix_ftsec_detections_rule", self.detections.c.rule, self.detections.c.name)
        self.layout = Layout(
            note="ftsec_layout",
            number=_LAYOUT,
            tables=self.metadata,
            steps={1: self._name_repositories, 2: self._prepare_lists},
        )

    def _name_repositories(self, database: Database, connection: Connection) -> None:
        """Layout 1 did not know which documents belong to one repository."""
        connection.exec_driver_sql("ALTER TABLE ftsec_documents ADD COLUMN repository TEXT")
        self._fill(database, connection, lambda found: {"repository": _repository(found)})

    def _prepare_lists(self, database: Database, connection: Connection) -> None:
        """Layout 2 read a page of the table for each row that a list passed over."""
        connection.exec_driver_sql("ALTER TABLE ftsec_documents ADD COLUMN rank FLOAT")
        connection.exec_driver_sql("ALTER TABLE ftsec_documents ADD COLUMN searched TEXT")
        for column in _EARLIER_INDEXES:
            connection.exec_driver_sql(f"DROP INDEX IF EXISTS ix_ftsec_documents_{column}")
        connection.exec_driver_sql("DROP INDEX IF EXISTS ix_ftsec_detections_rule")
        self._fill(database, connection, lambda found: {"rank": _rank(found), "searched": _searched(found)})
        for table in self.metadata.sorted_tables:
            for index in table.indexes:
                index.create(connection)

    def _fill(
        self, database: Database, connection: Connection, columns: Callable[[Any], dict[str, Any]]
    ) -> None:
        """Columns of each document from what its row holds already."""
        sql, of = database.sql, self.documents.c
        query = sql.select(of.name, of.reference, of.resolved, of.base, of.description, of.suspicion)
        query = query.order_by(of.name).limit(_AT_ONCE)
        found = connection.execute(query).mappings().all()
        while found:
            made = [columns(row) | {"of": row["name"]} for row in found]
            new = {name: sql.bindparam(name) for name in columns(found[0])}
            update = self.documents.update().where(of.name == sql.bindparam("of")).values(**new)
            connection.execute(update, made)
            found = connection.execute(query.where(of.name > found[-1]["name"])).mappings().all()


def document(row: Row) -> dict[str, Any]:
    """A row of the table of documents."""
    values = {field.name: getattr(row, field.name) for field in fields(row) if field.name != "detected"}
    texts = {name: str(values[name] or "") for name in ("verdict", "failure", "profile")}
    _, _, attempt = row.name.partition(".failed-")
    stored = _storable(values | texts)
    listed = {"repository": _repository(stored), "rank": _rank(stored), "searched": _searched(stored)}
    return stored | listed | {"attempt": int(attempt or 0)}


def listed_repository(name: str) -> str:
    """A repository as its column holds it."""
    return name[:_LONGEST]


def _repository(found: Mapping[str, Any]) -> str:
    return listed_repository(repository(found["resolved"] or found["reference"]))


def _rank(found: Mapping[str, Any]) -> float:
    """What has no suspicion stands last."""
    return -1.0 if found["suspicion"] is None else float(found["suspicion"])


def _searched(found: Mapping[str, Any]) -> str:
    """What a text is looked for in: repository, base, kind; without differences of case."""
    names = dict.fromkeys(
        repository(found[part]) for part in ("resolved", "reference", "base") if found[part]
    )
    return "\n".join((*names, found["description"] or "")).casefold()[:_LONGEST]


def detections(row: Row) -> list[dict[str, Any]]:
    """Rows of the table of detections."""
    return [
        {"name": row.name, "position": position, **_storable(asdict(one))}
        for position, one in enumerate(row.detected)
    ]


def detected(found: Any) -> Detected:
    return Detected(
        rule=found["rule"],
        severity=Severity(found["severity"]),
        confidence=found["confidence"],
        summary=found["summary"],
    )


def row(found: Any, detected: list[Detected]) -> Row:
    """The document that a row of its table was made from."""
    values = {key: value for key, value in found.items() if key not in _OWN}
    values["verdict"] = Verdict(found["verdict"]) if found["verdict"] else None
    values["failure"] = FailureKind(found["failure"]) if found["failure"] else None
    values["profile"] = Profile(found["profile"]) if found["profile"] else None
    return Row(**values, name=found["name"], detected=tuple(detected))


def _storable(values: dict[str, Any]) -> dict[str, Any]:
    """Text of artifacts without what databases refuse: zero bytes, halves of surrogate pairs."""
    return {
        name: str(value).encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")
        if isinstance(value, str)
        else value
        for name, value in values.items()
    }
