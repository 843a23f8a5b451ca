"""Singular spectra of single modules over benign ones and those of their kind, as numbers for a drawing."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ftsec_audit.report import modules as of_module
from ftsec_audit.report.phrases import number, percent
from ftsec_audit.types import ModuleMeasurement, Report, SpectrumBand
from ftsec_audit.weights.naming import category_of

BOX = (0.0, 0.0, 176.0, 104.0)
_LEFT, _TOP, _RIGHT, _BOTTOM = 30.0, 8.0, 170.0, 92.0
_MAX_SPECTRA = 12
_MOST_DECADES = 5
"""Singular values below 1e-5 of the power of ten at the top are drawn at the bottom."""
_LEAST_SIBLINGS = 8

Values = Sequence[float]
Powers = tuple[int, int]
"""The powers of ten at the top and at the bottom of every drawing."""


@dataclass(frozen=True, kw_only=True)
class Spectrum:
    """The singular values of one module's update, over benign ones and those of its kind in the artifact."""

    title: str
    module: int
    """The module it shows, by its place among the measurements."""
    caption: str
    marked: bool
    line: str
    """Points of a polyline, largest value first."""
    siblings: str
    """Points of a polygon: 5th to 95th percentile of the modules of that type that are not marked."""
    benign: str
    """Points of a polygon: 10th to 90th percentile of comparable benign updates, scaled to the same ‖ΔW‖."""
    median: str
    """Points of a polyline: the median of these."""
    population: str
    """Who the benign ones are, or why there are none."""
    ticks: tuple[tuple[float, str], ...]
    """Height and label of powers of ten."""


class _Measured(NamedTuple):
    place: int
    module: ModuleMeasurement
    values: Values
    marked: bool
    benign: SpectrumBand | None


class _Edges(NamedTuple):
    """Lower and upper edge of what a spectrum is drawn over, and the line between; empty without any."""

    low: Values = ()
    high: Values = ()
    median: Values = ()


def spectra(report: Report) -> list[Spectrum]:
    """The modules that detections name, then those with the most energy in one direction."""
    marked = of_module.marked(report)
    benign = {(band.role, band.block, band.rank): band for band in report.benign_spectra}
    spectra = [
        _Measured(
            i,
            m,
            of_module.spectrum(m),
            m.name in marked,
            benign.get((m.role, category_of(m.name), of_module.n_values(m))),
        )
        for i, m in enumerate(report.measurements)
    ]
    measured = sorted((one for one in spectra if one.values and max(one.values) > 0), key=_order)
    siblings: dict[str, list[Values]] = defaultdict(list)
    for one in measured:
        if not one.marked:
            siblings[one.module.role].append(one.values)
    bands = {role: _band(values) for role, values in siblings.items()}
    shown = [
        (one, bands.get(one.module.role, _Edges()), _scaled(one.benign, one.module))
        for one in measured[:_MAX_SPECTRA]
    ]
    powers = _powers(
        [*one.values, *kind.low, *kind.high, *benign.low, *benign.high] for one, kind, benign in shown
    )
    return [_drawn(*drawn, powers) for drawn in shown]


def _scaled(band: SpectrumBand | None, module: ModuleMeasurement) -> _Edges:
    """Shares of the energy as singular values of an update of this module's size."""
    size = of_module.norm(module)
    if band is None or not 0 < size < math.inf:
        return _Edges()
    edges = (
        [math.sqrt(max(share, 0.0)) * size for share in edge] for edge in (band.low, band.high, band.median)
    )
    return _Edges(*edges)


def _order(one: _Measured) -> tuple[float, ...]:
    layer = -1 if one.module.layer is None else one.module.layer
    return (0, layer) if one.marked else (1, -_share(one.module), layer)


def _drawn(one: _Measured, kind: _Edges, benign: _Edges, powers: Powers) -> Spectrum:
    module, values = one.module, one.values
    share = _share(module)

    def line(heights: Values) -> list[tuple[float, float]]:
        return [_point(i, len(values), v, powers) for i, v in enumerate(heights[: len(values)])]

    def outline(edges: _Edges) -> str:
        return _points(line(edges.high) + line(edges.low)[::-1])

    return Spectrum(
        title=f"layer {module.layer} {module.role}" if module.layer is not None else module.name,
        module=one.place,
        caption=f"σ₁ {number(max(values))}" + (f", {percent(share)} of the energy" if share else ""),
        marked=one.marked,
        line=_points(line(values)),
        siblings=outline(kind),
        benign=outline(benign),
        median=_points(line(benign.median)),
        population=_population(one.benign),
        ticks=tuple((_height(power, powers), f"1e{power}") for power in powers),
    )


def _powers(values: Iterable[Values]) -> Powers:
    exponents = [math.log10(value) for row in values for value in row if value > 0] or [0.0]
    top = math.ceil(max(exponents))
    return top, min(max(math.floor(min(exponents)), top - _MOST_DECADES), top - 1)


def _point(index: int, n: int, value: float, powers: Powers) -> tuple[float, float]:
    x = _LEFT + (_RIGHT - _LEFT) * (index / (n - 1) if n > 1 else 0.5)
    return x, _height(math.log10(value) if value > 0 else -math.inf, powers)


def _height(exponent: float, powers: Powers) -> float:
    top, bottom = powers
    depth = (top - exponent) / (top - bottom)
    return _TOP + (_BOTTOM - _TOP) * min(max(depth, 0.0), 1.0)


def _population(band: SpectrumBand | None) -> str:
    """`33 adapters of 13 repositories, lora · r 5-8`, or why there is no band."""
    if band is None:
        return "no benign band"
    if band.missing:
        return f"no benign band: {band.missing}"
    n, repositories = band.population.n, band.repositories
    return f"benign n = {n} of {repositories} repositories, {band.population.stratum}"


def _band(spectra: Sequence[Values]) -> _Edges:
    """5th and 95th percentile at each index; empty when there are too few modules to speak of any."""
    if len(spectra) < _LEAST_SIBLINGS:
        return _Edges()
    columns = [sorted(column) for column in zip(*spectra, strict=False)]
    low, high = ([column[round(q * (len(column) - 1))] for column in columns] for q in (0.05, 0.95))
    return _Edges(low, high)


def _share(module: ModuleMeasurement) -> float:
    """σ₁²/Σσ², 0 where it does not exist."""
    share = of_module.top_share(module)
    return share if share is not None and math.isfinite(share) else 0.0


def _points(points: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
