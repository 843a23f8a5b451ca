"""A store as tables that pandas and DuckDB read, with every document in them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import duckdb
import pandas
import pytest
from builders import reports

from ftsec_audit import cli
from ftsec_audit.batch.export import export
from ftsec_audit.batch.job import Failure, FailureKind
from ftsec_audit.batch.record import Record
from ftsec_audit.batch.store import Store
from ftsec_audit.types import ModuleMeasurement

MODULE = ModuleMeasurement(
    name="layers.0.q_proj", role="q_proj", layer=0, shape=(4, 4), values={"norm": 2.0, "spectrum": [3.0, 1.0]}
)


def records() -> list[Record]:
    measured = replace(reports.failing(), measurements=(MODULE,))
    lost = Failure(kind=FailureKind.CRASH, reason="the worker ended \udcff\0")
    return [
        Record(key="a" * 64, reference="org/good", report=reports.passing(), size=3, seconds=0.5),
        Record(key="b" * 64, reference="org/bad\udcff", report=measured, size=1 << 40, seconds=2.0),
        Record(key="c" * 64, reference="org/lost", failure=lost, attempt=1),
    ]


def test_the_tables_hold_every_document_and_join(tmp_path: Path) -> None:
    written = export(records(), tmp_path)
    artifacts = pandas.read_parquet(tmp_path / "artifacts.parquet")
    assert written["artifacts"] == len(artifacts) == 3
    assert list(artifacts["verdict"].fillna("")) == ["pass", "fail", ""]
    assert artifacts["size"].max() == 1 << 40
    assert artifacts["failure"].fillna("").tolist() == ["", "", "crash"]
    detected = duckdb.sql(
        f"select a.verdict, d.rule from '{tmp_path}/detections.parquet' d "
        f"join '{tmp_path}/artifacts.parquet' a using (key)"
    ).fetchall()
    assert set(detected) == {("fail", finding.rule) for finding in reports.failing().detected()}
    numbers = duckdb.sql(f"select statistic, value from '{tmp_path}/measurements.parquet'").fetchall()
    expected = [("norm", 2.0), ("spectrum", 3.0), ("spectrum", 1.0)]
    assert [row for row in numbers if row[0] in ("norm", "spectrum")] == expected


def test_tables_appear_whole_or_not_at_all(tmp_path: Path) -> None:
    def broken():
        yield from records()
        raise OSError("the store went away")

    export(records()[:1], tmp_path)
    with pytest.raises(OSError, match="went away"):
        export(broken(), tmp_path)
    assert len(pandas.read_parquet(tmp_path / "artifacts.parquet")) == 1
    assert not list(tmp_path.glob(".*"))


def test_the_command_exports_what_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = Store(str(tmp_path / "store"))
    for record in records():
        store.put(record)
    command = ["report", "--store", str(tmp_path / "store"), "--export", str(tmp_path / "tables")]
    assert cli.run([*command, "--verdict", "fail"]) == 0
    assert pandas.read_parquet(tmp_path / "tables" / "artifacts.parquet")["verdict"].tolist() == ["fail"]
    assert "artifacts.parquet: 1 rows" in capsys.readouterr().out
    assert cli.run([*command, "--failed"]) == 0
    assert pandas.read_parquet(tmp_path / "tables" / "artifacts.parquet")["failure"].tolist() == ["crash"]
