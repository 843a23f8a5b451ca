"""Singular spectra of single modules over those of their kind, as the numbers that a drawing needs."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ftsec_audit.report import modules as of_module
from ftsec_audit.report.phrases import number, percent
from ftsec_audit.types import ModuleMeasurement, Report

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
    """The singular values of one module's update, over those of its kind in the same artifact."""

    title: str
    module: int
    """The module it shows, by its place among the measurements."""
    caption: str
    marked: bool
    line: str
    """Points of a polyline, largest value first."""
    band: str
    """Points of a polygon: 5th to 95th percentile of the modules of that type that are not marked."""
    ticks: tuple[tuple[float, str], ...]
    """Height and label of powers of ten."""


class _Measured(NamedTuple):
    place: int
    module: ModuleMeasurement
    values: Values
    marked: bool


def spectra(report: Report) -> list[Spectrum]:
    """The modules that detections name, then those with the most energy in one direction."""
    marked = of_module.marked(report)
    spectra = [
        _Measured(i, m, of_module.spectrum(m), m.name in marked) for i, m in enumerate(report.measurements)
    ]
    measured = sorted((one for one in spectra if one.values and max(one.values) > 0), key=_order)
    siblings: dict[str, list[Values]] = defaultdict(list)
    for one in measured:
        if not one.marked:
            siblings[one.module.role].append(one.values)
    bands = {role: _band(values) for role, values in siblings.items()}
    shown = [(one, bands.get(one.module.role, ([], []))) for one in measured[:_MAX_SPECTRA]]
    powers = _powers([*one.values, *low, *high] for one, (low, high) in shown)
    return [_drawn(one, band, powers) for one, band in shown]


def _order(one: _Measured) -> tuple[float, ...]:
    layer = -1 if one.module.layer is None else one.module.layer
    return (0, layer) if one.marked else (1, -_share(one.module), layer)


def _drawn(one: _Measured, band: tuple[Values, Values], powers: Powers) -> Spectrum:
    module, values = one.module, one.values
    low, high = (
        [_point(i, len(values), v, powers) for i, v in enumerate(edge[: len(values)])] for edge in band
    )
    share = _share(module)
    return Spectrum(
        title=f"layer {module.layer} {module.role}" if module.layer is not None else module.name,
        module=one.place,
        caption=f"σ₁ {number(max(values))}" + (f", {percent(share)} of the energy" if share else ""),
        marked=one.marked,
        line=_points(_point(i, len(values), value, powers) for i, value in enumerate(values)),
        band=_points(high + low[::-1]),
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


def _band(spectra: Sequence[Values]) -> tuple[Values, Values]:
    """5th and 95th percentile at each index; empty when there are too few modules to speak of any."""
    if len(spectra) < _LEAST_SIBLINGS:
        return [], []
    columns = [sorted(column) for column in zip(*spectra, strict=False)]
    low, high = ([column[round(q * (len(column) - 1))] for column in columns] for q in (0.05, 0.95))
    return low, high


def _share(module: ModuleMeasurement) -> float:
    """σ₁²/Σσ², 0 where it does not exist."""
    share = of_module.top_share(module)
    return share if share is not None and math.isfinite(share) else 0.0


def _points(points: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
