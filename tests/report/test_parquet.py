"""Measurements as a table: every number once, and read back by the library itself."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO

import pytest
from builders.reports import failing, passing
from pyarrow import parquet

from ftsec_audit.cli import run
from ftsec_audit.report import render_all
from ftsec_audit.report.json import render
from ftsec_audit.types import ModuleMeasurement


def rows(data):
    return parquet.read_table(BytesIO(data)).to_pylist()


def test_every_number_is_a_row():
    module = ModuleMeasurement(
        name="model.layers.0.q_proj",
        role="q_proj",
        layer=0,
        shape=(4, 4),
        values={"norm": 2.0, "singular_values": [3.0, 1.0]},
    )
    report = replace(passing(), measurements=(module,))
    found = [
        (row["statistic"], row["position"], row["value"]) for row in rows(render_all([report], "parquet"))
    ]
    assert found == [("norm", 0, 2.0), ("singular_values", 0, 3.0), ("singular_values", 1, 1.0)]


def test_reports_of_several_artifacts_share_a_file_and_one_may_have_nothing():
    empty = replace(passing(), measurements=())
    found = rows(render_all([empty, failing()], "parquet"))
    assert {row["artifact"] for row in found} == {failing().artifact.resolved}
    assert {row["verdict"] for row in found} == {"fail"}


def test_names_that_utf8_cannot_hold_are_spelt_out():
    report = failing()
    odd = replace(report, artifact=replace(report.artifact, resolved="x\udc80y"))
    assert rows(render_all([odd], "parquet"))[0]["artifact"] == "x\\udc80y"


def test_the_command_writes_the_file_for_all_reports(tmp_path):
    for name, report in (("a", passing()), ("b", failing())):
        (tmp_path / f"{name}.json").write_text(render(report))
    out = tmp_path / "m.parquet"
    code = run(["report", str(tmp_path / "a.json"), str(tmp_path / "b.json"), "-f", f"parquet={out}"])
    assert code == 1
    total = sum(
        len(value) if isinstance(value, list) else 1
        for report in (passing(), failing())
        for module in report.measurements
        for value in module.values.values()
    )
    assert len(rows(out.read_bytes())) == total > 0


def test_without_a_path_there_is_a_clear_error(tmp_path, capsys):
    (tmp_path / "a.json").write_text(render(passing()))
    assert run(["report", str(tmp_path / "a.json"), "-f", "parquet"]) == 2
    assert "parquet=PATH" in capsys.readouterr().err


@pytest.mark.parametrize("format", ["table", "nothing"])
def test_other_formats_are_refused(format):
    from ftsec_audit.errors import UsageError

    with pytest.raises(UsageError):
        render_all([passing()], format)
