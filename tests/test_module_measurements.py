"""Measurements as rows and as a data frame."""

from __future__ import annotations

import sys
from dataclasses import replace

import pandas
import pytest
from builders.reports import failing, passing

from ftsec_audit.errors import UsageError
from ftsec_audit.report import json
from ftsec_audit.types import ModuleMeasurement, Report


def measured() -> Report:
    modules = (
        ModuleMeasurement(
            name="model.layers.0.q_proj",
            role="q_proj",
            layer=0,
            shape=(4, 4),
            values={"norm": 2.0, "singular_values": [3.0, 1.0]},
        ),
        ModuleMeasurement(
            name="embed", role="embed_tokens", layer=None, shape=(9, 4), values={"norm": float("nan")}
        ),
    )
    return replace(passing(), measurements=modules)


def test_a_data_frame_has_a_row_for_every_number() -> None:
    frame = measured().measurements.to_pandas()
    assert list(frame.columns) == ["module", "role", "layer", "statistic", "position", "value"]
    assert frame.value.tolist()[:3] == [2.0, 3.0, 1.0]
    assert frame.position.tolist() == [0, 0, 1, 0]
    assert frame.layer.isna().tolist() == [False, False, False, True]
    assert pandas.isna(frame.value[3])
    spectrum = frame[frame.statistic == "singular_values"]
    assert spectrum.groupby("module").value.max().to_dict() == {"model.layers.0.q_proj": 3.0}


def test_a_report_that_was_stored_has_them_too() -> None:
    report = failing()
    again = json.load(json.render(report))
    assert again.measurements == report.measurements
    assert len(again.measurements.to_pandas()) == sum(1 for _ in report.measurements.rows()) > 0


def test_nothing_measured_is_an_empty_frame_with_the_same_columns() -> None:
    empty = replace(passing(), measurements=()).measurements.to_pandas()
    assert empty.empty
    assert empty.dtypes.equals(measured().measurements.to_pandas().dtypes)


def test_without_pandas_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UsageError, match=r"ftsec-audit\[pandas\]"):
        measured().measurements.to_pandas()
