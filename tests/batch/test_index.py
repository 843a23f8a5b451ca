"""The index says of the documents what they say themselves, in SQLite and in a real PostgreSQL."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import postgres
import pytest
import sqlalchemy
from builders import reports
from builders.batch_driver import Inline, batch
from builders.batch_work import job

from ftsec_audit.batch import database as databases
from ftsec_audit.batch import drive, index_tables
from ftsec_audit.batch.database import Database
from ftsec_audit.batch.index import Filter, Index
from ftsec_audit.batch.job import Done, Failure, FailureKind, Row
from ftsec_audit.batch.record import Record
from ftsec_audit.batch.schedule import Schedule
from ftsec_audit.batch.store import Store
from ftsec_audit.errors import UsageError
from ftsec_audit.types import Report, Verdict


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


def put(store: Store, number: int, report: Report | None = None, **values: object) -> Row:
    """A document; a failure without a report."""
    failure = None if report else Failure(kind=FailureKind.CRASH, reason="so it goes")
    record = Record(
        **{
            "key": f"{number:064x}",
            "reference": f"org/m{number}",
            "scanned_at": f"2026-01-{number:02}T00:00:00Z",
            "report": report,
            "failure": failure,
            "attempt": 0 if report else 1,
            **values,
        }  # type: ignore[arg-type]
    )
    store.put(record)
    return record.row()


def found(index: Index, **wanted: object) -> list[str]:
    return [row.key.lstrip("0") for row in index.rows(Filter(**wanted))]  # type: ignore[arg-type]


def test_every_row_comes_back_as_it_was(database_url: str, store: Store) -> None:
    several = (reports.passing(), reports.failing(), reports.inconclusive(), reports.hostile())
    rows = [put(store, number, report) for number, report in enumerate(several, start=1)]
    index = Index(database_url)
    assert index.sync(store) == []
    back = {row.name: row for row in index.rows(Filter())}
    assert len(back) == 4
    for row in rows[:3]:
        assert back[row.name] == row
    hostile, given = back[rows[3].name], rows[3]
    assert [one.rule for one in hostile.detected] == [one.rule for one in given.detected]
    assert "\\x00" in hostile.description  # a database refuses what a document may hold
    assert "<script>" in hostile.description


def test_what_is_asked_for_is_what_is_found(database_url: str, store: Store) -> None:
    put(store, 1, reports.passing())
    put(store, 2, reports.failing(), base="org/the-100%_base")
    put(store, 3, reports.inconclusive())
    put(store, 4)
    index = Index(database_url)
    index.sync(store)
    assert found(index) == ["2", "1", "3"]
    assert found(index, latest_first=True) == ["3", "2", "1"]
    assert found(index, verdict=Verdict.FAIL) == found(index, rule="FTA3") == ["2"]
    assert found(index, rule="FTA301") == ["2"]
    assert found(index, rule="%") == found(index, rule="TA3") == []
    assert found(index, since="2026-01-03") == ["3"]
    assert found(index, text="ORG/M1") == found(index, text="acme") == ["1"]
    assert found(index, text="100%_b") == found(index, text="The-100%", verdict=Verdict.FAIL) == ["2"]
    assert found(index, text="100__b") == []
    assert found(index, text="'; drop table ftsec_documents; --") == []
    assert found(index, failed=True) == ["4"]
    assert found(index, failed=None, latest_first=True) == ["4", "3", "2", "1"]
    assert found(index, limit=1) == ["2"]
    assert found(index, limit=1, offset=1) == ["1"]
    assert found(index, offset=2) == ["3"]
    assert index.count(Filter()) == index.count(Filter(limit=1, offset=1)) == 3
    assert index.count(Filter(failed=True)) == 1
    assert index.verdicts() == {Verdict.PASS: 1, Verdict.FAIL: 1, Verdict.INCONCLUSIVE: 1}


def test_the_history_of_a_repository_holds_all_its_versions(database_url: str, store: Store) -> None:
    for number, report in enumerate((reports.passing(), reports.failing(), reports.passing()), start=1):
        resolved = f"org/model@{number:040x}"
        put(store, number, replace(report, artifact=replace(report.artifact, resolved=resolved)))
    put(store, 4, reference="hf://org/model@main/folder")
    put(store, 5, reference="/a/folder")
    for version in (6, 7):
        put(store, version, reference=f"models:/support/{version}")
    deep = "/" + random.Random(0).randbytes(2000).hex()  # more than PostgreSQL takes into an index
    put(store, 8, reference=deep)
    index = Index(database_url)
    assert index.sync(store) == []
    assert found(index, repository=deep, failed=None) == ["8"]
    assert found(index, repository="org/model", failed=None, latest_first=True) == ["4", "3", "2", "1"]
    assert found(index, repository="/a/folder", failed=None) == ["5"]
    assert found(index, repository="models:/support", failed=None, latest_first=True) == ["7", "6"]


def test_a_failure_is_listed_until_a_report_or_a_later_one_takes_its_place(
    database_url: str, store: Store
) -> None:
    put(store, 1, attempt=1)
    put(store, 1, attempt=2)
    put(store, 2)
    index = Index(database_url)
    index.sync(store)
    assert {(row.key.lstrip("0"), row.name[-1]) for row in index.rows(Filter(failed=True))} == {
        ("1", "2"),
        ("2", "1"),
    }
    put(store, 2, reports.passing())
    index.sync(store)
    assert found(index, failed=True) == ["1"]


def test_it_follows_the_store_and_names_damaged_documents(
    database_url: str, store: Store, tmp_path: Path
) -> None:
    rows = [put(store, number, reports.passing()) for number in (1, 2, 3)]
    index = Index(database_url)
    index.sync(store)
    store.discard(rows[0].name)
    path = tmp_path / "store" / "00" / f"{4:064x}.json"
    path.write_bytes(b"{")
    (damage,) = index.sync(store)
    assert "00004" in damage
    assert found(index) == ["2", "3"]


def test_a_row_is_entered_once_however_many_enter_it(database_url: str, store: Store) -> None:
    rows = [put(store, number, reports.failing()) for number in range(1, 6)]
    problems: list[str] = []

    def enter() -> None:
        index = Index(database_url)  # creating the tables at once is part of it
        problems.extend(filter(None, (index.add([row]) for row in rows * 3)))
        index.close()

    threads = [threading.Thread(target=enter) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    index = Index(database_url)
    assert len(found(index)) == 5
    assert all(len(row.detected) == 3 for row in index.rows(Filter()))


_LAYOUT_1 = (
    "CREATE TABLE ftsec_layout (layout INTEGER NOT NULL PRIMARY KEY)",
    "INSERT INTO ftsec_layout VALUES (1)",
    "CREATE TABLE ftsec_documents (name VARCHAR(100) NOT NULL PRIMARY KEY, attempt INTEGER NOT NULL, "
    "key TEXT, reference TEXT, base TEXT, resolved TEXT, digest TEXT, description TEXT, profile TEXT, "
    "verdict TEXT, suspicion FLOAT, failure TEXT, reason TEXT, size BIGINT, seconds FLOAT, memory BIGINT, "
    "scanned_at TEXT, tool_version TEXT)",
    "CREATE INDEX ix_ftsec_documents_suspicion ON ftsec_documents (suspicion)",
    "CREATE TABLE ftsec_detections (name VARCHAR(100) NOT NULL REFERENCES ftsec_documents (name), "
    "position INTEGER NOT NULL, rule TEXT, severity TEXT, confidence TEXT, summary TEXT, "
    "PRIMARY KEY (name, position))",
    "INSERT INTO ftsec_documents VALUES ('one', 0, 'one', 'org/a@main', '', 'org/a@1234567', '', '', "
    "'quick', 'fail', 0.5, '', '', 1, 1.0, 1, '2026-01-01T00:00:00Z', '0.1.0')",
    "INSERT INTO ftsec_detections VALUES ('one', 0, 'FTA401', 'high', 'high', 'runs code')",
)
"""The tables as the first version made them, with one document."""


def execute(url: str, *statements: str) -> None:
    database = Database(url)
    with database.writing() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)
    database.close()


def test_an_older_layout_is_migrated_and_nothing_is_read_again(database_url: str) -> None:
    execute(database_url, *_LAYOUT_1)
    index = Index(database_url)
    (row,) = index.rows(Filter(repository="org/a"))
    assert (row.name, row.verdict, row.detected[0].rule) == ("one", Verdict.FAIL, "FTA401")
    assert [row.name for row in index.rows(Filter(text="ORG/A"))] == ["one"]
    inspector = sqlalchemy.inspect(Database(database_url)._engine)
    for name, table in index._tables.metadata.tables.items():
        there = {index["name"]: len(index["column_names"]) for index in inspector.get_indexes(name)}
        assert there == {index.name: len(index.expressions) for index in table.indexes}
    assert len(list(Index(database_url).rows(Filter()))) == 1


def test_documents_of_an_older_layout_keep_their_places(database_url: str) -> None:
    more = (
        f"INSERT INTO ftsec_documents VALUES ('{name}', 0, '{name}', 'org/{name}', '', '', '', '', 'quick', "
        f"'fail', {suspicion}, '', '', 1, 1.0, 1, '2026-01-01T00:00:00Z', '0.1.0')"
        for name, suspicion in (("none", "NULL"), ("more", 0.9), ("less", 0.1))
    )
    execute(database_url, *_LAYOUT_1, *more)
    assert [row.name for row in Index(database_url).rows(Filter())] == ["more", "one", "less", "none"]


def test_a_migration_that_is_cut_short_leaves_the_old_tables(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute(database_url, *_LAYOUT_1)
    with monkeypatch.context() as patched:
        patched.setattr(index_tables, "repository", lambda reference: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            Index(database_url)
    assert len(list(Index(database_url).rows(Filter(repository="org/a")))) == 1


def test_a_layout_with_no_way_from_it_is_replaced_and_filled_from_the_store(
    database_url: str, store: Store
) -> None:
    execute(database_url, *_LAYOUT_1, "UPDATE ftsec_layout SET layout = 0")
    put(store, 1, reports.passing())
    index = Index(database_url)
    index.sync(store)
    assert found(index) == ["1"]


def test_a_newer_layout_is_left_alone(database_url: str) -> None:
    Index(database_url).close()
    execute(database_url, "UPDATE ftsec_layout SET layout = 99")
    with pytest.raises(UsageError, match="newer version"):
        Index(database_url)


@pytest.mark.parametrize(
    "wanted",
    [
        Filter(),
        Filter(latest_first=True),
        Filter(verdict=Verdict.FAIL),
        Filter(text="model"),
        Filter(repository="org/model"),
    ],
)
def test_a_list_is_read_from_one_index_without_sorting_or_looking_elsewhere(
    wanted: Filter, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path / 'index.sqlite'}"
    index = Index(url)
    query = index._query(replace(wanted, limit=10)).compile(compile_kwargs={"literal_binds": True})
    with Database(url).reading() as connection:
        steps = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {query}").all()
    assert len(steps) == 1
    assert "COVERING INDEX ix_ftsec_documents_" in str(steps)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("mysql://host/name", "mysql is not supported"),
        ("index.sqlite", "parse"),
        ("sqlite:////no/such/folder/index.sqlite", "unable to open database file"),
        ("postgresql://user:hunter2@/x?host=/no/such/folder", "connection"),
    ],
)
def test_an_unusable_address_is_explained_and_no_password_told(url: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as raised:
        Index(url)
    assert "hunter2" not in str(raised.value)


def test_a_missing_driver_is_named_with_the_way_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_arguments: object, **_options: object) -> None:
        raise ModuleNotFoundError("No module named 'psycopg'")

    monkeypatch.setattr(sqlalchemy, "create_engine", missing)
    with pytest.raises(UsageError, match=r"ftsec-audit\[postgres\]"):
        databases.Database("postgresql://host/name")


class Killing(Inline):
    """Does the work inline, and calls `deed` before the job of that number."""

    def __init__(self, number: int, deed: Callable[[], None]) -> None:
        self.number, self.deed = number, deed

    def results(self, schedule: Schedule) -> Iterator[Done]:
        for number, each in enumerate(schedule, start=1):
            if number == self.number:
                self.deed()
            yield self.work(each)


def references(folder: Path) -> list[str]:
    return [line.split()[1] for line in (folder / "log").read_text().splitlines()]


def test_a_killed_postgresql_loses_nothing_and_repeats_nothing(
    postgresql: postgres.Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drive, "_INDEXED_AT_ONCE", 4)
    url = postgresql.emptied()
    names = [f"ok:{number}" for number in range(10)]
    index = Index(url)
    first = batch(tmp_path, names, index=index, executor=Killing(6, postgresql.kill)).run()
    assert first.verdicts[Verdict.PASS] == 10
    with pytest.raises(UsageError, match="index"):
        index.count(Filter())
    postgresql.start()
    entered = index.count(Filter())
    assert entered == 4  # what was entered before the kill, with connections that are made anew
    assert index.sync(Store(str(tmp_path / "store"))) == []
    assert index.count(Filter()) == 10
    again = batch(tmp_path, names, index=index).run()
    assert again.finished_before == 10
    assert sorted(references(tmp_path)) == sorted(names)


def test_a_postgresql_killed_between_entry_and_commit_has_entered_nothing_or_all(
    postgresql: postgres.Postgres, tmp_path: Path, store: Store
) -> None:
    index = Index(postgresql.emptied())
    rows = [put(store, number, reports.failing()) for number in (1, 2, 3)]
    assert index.add(rows[:1]) == ""

    def kill(connection: sqlalchemy.Connection) -> None:
        postgresql.kill()

    sqlalchemy.event.listen(sqlalchemy.Engine, "commit", kill)
    try:
        assert index.add(rows[1:]) != ""
    finally:
        sqlalchemy.event.remove(sqlalchemy.Engine, "commit", kill)
    postgresql.start()
    assert found(index) == ["1"]
    index.sync(store)
    assert found(index) == ["1", "2", "3"]
    assert all(len(row.detected) == 3 for row in index.rows(Filter()))


def test_a_batch_whose_database_is_down_from_the_start_is_entered_later(
    postgresql: postgres.Postgres, tmp_path: Path
) -> None:
    url = postgresql.emptied()
    index = Index(url)
    postgresql.kill()
    try:
        assert batch(tmp_path, ["a", "b"], index=index).run().done == 2
        with pytest.raises(UsageError):
            Index(url)
    finally:
        postgresql.start()
    index.sync(Store(str(tmp_path / "store")))
    assert {row.key for row in index.rows(Filter())} == {job("a", 1).key, job("b", 2).key}
