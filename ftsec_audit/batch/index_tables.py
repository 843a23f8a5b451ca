"""The tables of the index, and how those of earlier versions become these."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from ftsec_audit.batch.database import Database, Layout
from ftsec_audit.batch.job import Detected, FailureKind, Row, repository
from ftsec_audit.types import Profile, Severity, Verdict

if TYPE_CHECKING:
    from sqlalchemy import Connection

_LAYOUT = 2
_NUMBERS = {"size": "BigInteger", "memory": "BigInteger", "seconds": "Float", "suspicion": "Float"}
_SEARCHED = ("key", "verdict", "scanned_at", "repository")
_OWN = ("name", "attempt", "repository")
_RANK = "ix_ftsec_documents_rank"
_NEW_INDEXES = ("ix_ftsec_documents_repository", _RANK)
_AT_ONCE = 1000


class Tables:
    """One row per document, one per detection in it."""

    def __init__(self, database: Database) -> None:
        sql = database.sql
        self.metadata = sql.MetaData()
        columns = [
            sql.Column(name, getattr(sql, _NUMBERS.get(name, "Text")), index=name in _SEARCHED)
            for name in (field.name for field in fields(Row) if field.name not in ("name", "detected"))
        ]
        self.documents = sql.Table(
            "ftsec_documents",
            self.metadata,
            sql.Column("name", sql.String(100), primary_key=True),
            sql.Column("attempt", sql.Integer, nullable=False),
            *columns,
            sql.Column("repository", sql.Text, index=True),
        )
        self.rank = sql.func.coalesce(self.documents.c.suspicion, sql.literal_column("-1")).desc()
        sql.Index(_RANK, self.documents.c.failure, self.rank, self.documents.c.name)
        self.detections = sql.Table(
            "ftsec_detections",
            self.metadata,
            sql.Column("name", sql.String(100), sql.ForeignKey(self.documents.c.name), primary_key=True),
            sql.Column("position", sql.Integer, primary_key=True),
            sql.Column("rule", sql.Text, index=True),
            *(sql.Column(name, sql.Text) for name in ("severity", "confidence", "summary")),
        )
        self.layout = Layout(
            note="ftsec_layout", number=_LAYOUT, tables=self.metadata, steps={1: self._name_repositories}
        )

    def _name_repositories(self, database: Database, connection: Connection) -> None:
        """Layout 1 did not know which documents belong to one repository, and had no order by rank."""
        sql, table = database.sql, self.documents
        connection.exec_driver_sql("ALTER TABLE ftsec_documents ADD COLUMN repository TEXT")
        known = connection.execute(sql.select(table.c.name, table.c.resolved, table.c.reference)).all()
        named = [{"of": name, "new": repository(resolved or given)} for name, resolved, given in known]
        update = table.update().where(table.c.name == sql.bindparam("of"))
        for start in range(0, len(named), _AT_ONCE):
            connection.execute(
                update.values(repository=sql.bindparam("new")), named[start : start + _AT_ONCE]
            )
        for column in ("suspicion", "failure"):
            connection.exec_driver_sql(f"DROP INDEX IF EXISTS ix_ftsec_documents_{column}")
        for index in table.indexes:
            if index.name in _NEW_INDEXES:
                index.create(connection)


def document(row: Row) -> dict[str, Any]:
    """A row of the table of documents."""
    values = {field.name: getattr(row, field.name) for field in fields(row) if field.name != "detected"}
    texts = {name: str(values[name] or "") for name in ("verdict", "failure", "profile")}
    _, _, attempt = row.name.partition(".failed-")
    return _storable(values | texts | {"repository": row.repository}) | {"attempt": int(attempt or 0)}


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
