from __future__ import annotations

import math
from dataclasses import replace

import pytest
from builders import reports

from ftsec_audit.report.heat_map import MAX_COLUMNS, MAX_ROWS, heat_maps
from ftsec_audit.report.spectrum import spectra
from ftsec_audit.report.strip import WIDTH, strip
from ftsec_audit.types import Evidence, ModuleMeasurement, Population, Report


def _evidence(value: float | None, band: tuple[float, float] | None) -> Evidence:
    return Evidence(message="", value=value, population=Population(id="p", stratum="s", n=40, band=band))


@pytest.mark.parametrize(
    ("value", "band", "outside"),
    [
        (0.5, (0.2, 0.6), False),
        (0.9, (0.2, 0.6), True),
        (-3.0, (-1.0, 1.0), True),
        (1e30, (1e-30, 1.0), True),
    ],
)
def test_a_value_stands_where_it_is_beside_its_band(
    value: float, band: tuple[float, float], outside: bool
) -> None:
    drawn = strip(_evidence(value, band))
    assert drawn is not None
    assert drawn.outside is outside
    assert 0 < drawn.band[0] < drawn.band[1] < WIDTH
    assert 0 < drawn.at < WIDTH
    assert (drawn.band[0] <= drawn.at <= drawn.band[1]) is not outside


@pytest.mark.parametrize(
    ("value", "band"),
    [
        (None, (0.0, 1.0)),
        (1.0, None),
        (math.nan, (0.0, 1.0)),
        (1.0, (math.nan, 1.0)),
        (1.0, (2.0, 1.0)),
        (math.inf, (0.0, 1.0)),
    ],
)
def test_what_has_no_place_on_an_axis_is_not_drawn(
    value: float | None, band: tuple[float, float] | None
) -> None:
    assert strip(_evidence(value, band)) is None


def test_a_band_without_width_and_extreme_numbers_are_drawn() -> None:
    drawn = strip(_evidence(1.0, (1.0, 1.0)))
    assert drawn is not None
    assert drawn.band[0] < drawn.band[1]
    assert strip(_evidence(1.7e308, (-1.7e308, 0.0))) is not None


def test_heat_maps_show_each_module_and_mark_those_that_findings_name() -> None:
    maps = heat_maps(reports.failing())
    assert [map_.title for map_ in maps] == [
        *("Size of the update", "Energy in one direction", "Concentration of the entries"),
    ]
    energy = maps[1]
    assert energy.rows == reports.ROLES
    assert energy.columns == tuple(map(str, range(32)))
    assert len(energy.cells) == 224
    marked = [cell for cell in energy.cells if cell.marked]
    assert [(cell.column, energy.rows[cell.row], cell.step) for cell in marked] == [
        (layer, "v_proj", 9) for layer in range(14, 18)
    ]
    assert marked[0].title.startswith("model.layers.14.self_attn.v_proj: 0.9")


def test_heat_maps_stay_small_whatever_the_model() -> None:
    huge = _with(reports.modules(layers=300, roles=tuple(f"experts.{i}" for i in range(40))))
    for map_ in heat_maps(huge):
        assert len(map_.rows) == MAX_ROWS
        assert map_.rows[-1] == "other"
        assert len(map_.columns) == 100
        assert map_.columns[0] == "0…2"
        assert len(map_.cells) <= MAX_ROWS * MAX_COLUMNS
    assert "(largest of" in heat_maps(huge)[0].cells[-1].title


def test_tensors_outside_of_layers_come_first() -> None:
    outside = replace(reports.modules(layers=1)[0], name="lm_head", layer=None)
    map_ = heat_maps(_with((*reports.modules(layers=2), outside)))[0]
    assert map_.columns == ("–", "0", "1")


def test_values_that_are_not_finite_have_no_colour() -> None:
    modules = [_module(i, value) for i, value in enumerate((1.0, math.nan, 2.0, math.inf))]
    map_ = heat_maps(_with(modules))[-1]
    assert [cell.step for cell in map_.cells] == [0, None, 9, None]
    assert (map_.low, map_.high) == ("1", "2")


def test_nothing_measured_gives_no_drawing() -> None:
    assert heat_maps(_with(())) == []
    assert spectra(_with(())) == []
    assert heat_maps(_with(reports.modules(layers=1, roles=("q_proj",)))) == []


def test_spectra_show_the_modules_that_findings_name_first() -> None:
    drawn = spectra(reports.failing())
    assert [(s.title, s.marked) for s in drawn[:5]] == [
        *((f"layer {layer} v_proj", True) for layer in range(14, 18)),
        (drawn[4].title, False),
    ]
    assert all(len(s.line.split()) == 16 for s in drawn)
    assert all(len(s.siblings.split()) == 32 for s in drawn)


@pytest.mark.parametrize(
    "values", [[], [0.0, 0.0], [math.nan], [math.inf, 1.0], [1e-320], [-1.0], [1.7e308, 1.7e308], [5.0]]
)
def test_odd_spectra_are_drawn_or_left_out(values: list[float]) -> None:
    modules = [replace(_module(i, 1.0), values={"singular_values": values}) for i in range(9)]
    for one in spectra(_with(modules)):
        assert "nan" not in one.line + one.caption
        assert "inf" not in one.line
    heat_maps(_with(modules))


def test_spectra_of_different_length_share_a_band_as_far_as_all_reach() -> None:
    modules = [replace(_module(i, 1.0), values={"singular_values": [1.0] * (2 + i)}) for i in range(9)]
    drawn = spectra(_with(modules))
    assert len(drawn[0].siblings.split()) == 4


def _with(modules: tuple[ModuleMeasurement, ...] | list[ModuleMeasurement]) -> Report:
    return replace(reports.failing(), measurements=tuple(modules))


def _module(layer: int, value: float) -> ModuleMeasurement:
    return ModuleMeasurement(
        name=f"layers.{layer}.q", role="q", layer=layer, shape=(4, 4), values={"entry_kurtosis": value}
    )
