"""Layer × module type, coloured by a statistic, as the numbers that a drawing needs.

At most `MAX_ROWS` × `MAX_COLUMNS` cells whatever the size of the model; the most extreme module of a cell
stands for it. Values that are not finite have no colour.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ftsec_audit.report import modules as of_module
from ftsec_audit.report.phrases import clipped, number
from ftsec_audit.report.strip import axis
from ftsec_audit.types import ModuleMeasurement, Report


@dataclass(frozen=True, kw_only=True)
class Cell:
    """Modules of one kind in one layer, or a few neighbouring ones."""

    column: int
    row: int
    step: int | None
    """Place on the colour scale, 0 to 9; None when the value is not finite."""
    title: str
    marked: bool
    """Whether a detection names one of the modules."""
    module: int
    """The module it shows, by its place among the measurements."""


@dataclass(frozen=True, kw_only=True)
class HeatMap:
    title: str
    explanation: str
    rows: tuple[str, ...]
    """Module types, top to bottom."""
    columns: tuple[str, ...]
    """Layers, left to right."""
    cells: tuple[Cell, ...]
    low: str
    high: str


class _Measured(NamedTuple):
    place: int
    module: ModuleMeasurement
    value: float


MAX_ROWS = 24
MAX_COLUMNS = 128
MAX_NAME = 100
_STEPS = 10
_OTHER = "other"


def heat_maps(report: Report) -> list[HeatMap]:
    """Layer × module type, one map per statistic that was measured on more than one module."""
    marked = of_module.marked(report)
    maps = (_heat_map(statistic, report.measurements, marked) for statistic in of_module.DRAWN)
    return [map_ for map_ in maps if map_ is not None]


def _heat_map(
    statistic: of_module.Statistic, modules: Sequence[ModuleMeasurement], marked: frozenset[str]
) -> HeatMap | None:
    measured = [
        _Measured(place, module, value)
        for place, module in enumerate(modules)
        if (value := statistic.of(module)) is not None
    ]
    if len(measured) < 2:
        return None
    rows = _rows(one.module.role for one in measured)
    columns = _columns(one.module.layer for one in measured)
    column_of = {layer: i for i, layers in enumerate(columns) for layer in layers}
    groups: dict[tuple[int, int], list[_Measured]] = defaultdict(list)
    for one in measured:
        row = rows.index(one.module.role if one.module.role in rows else _OTHER)
        groups[column_of[one.module.layer], row].append(one)
    finite = [one.value for one in measured if math.isfinite(one.value)]
    position = axis(finite or (0.0,))
    cells = tuple(
        _cell(place, group, position, {one.module.name for one in group} & marked)
        for place, group in sorted(groups.items())
    )
    return HeatMap(
        title=statistic.title,
        explanation=statistic.explanation,
        rows=rows,
        columns=tuple(_layers_label(layers) for layers in columns),
        cells=cells,
        low=number(min(finite)) if finite else "–",
        high=number(max(finite)) if finite else "–",
    )


def _cell(
    place: tuple[int, int],
    group: Sequence[_Measured],
    position: Callable[[float], float],
    marked: set[str],
) -> Cell:
    """The most extreme module stands for its group; one that is not finite is more extreme than any."""
    most = max(group, key=lambda one: (not math.isfinite(one.value), one.value))
    title = f"{clipped(most.module.name, MAX_NAME)}: {number(most.value)}"
    if len(group) > 1:
        title += f" (largest of {len(group)})"
    step = min(int(position(most.value) * _STEPS), _STEPS - 1) if math.isfinite(most.value) else None
    return Cell(column=place[0], row=place[1], step=step, title=title, marked=bool(marked), module=most.place)


def _rows(roles: Iterable[str]) -> tuple[str, ...]:
    """Module types in order of appearance; beyond `MAX_ROWS` the rarer ones share a row."""
    counts = Counter(roles)
    if len(counts) <= MAX_ROWS:
        return tuple(counts)
    kept = {role for role, _ in counts.most_common(MAX_ROWS - 1)} - {_OTHER}
    return (*(role for role in counts if role in kept), _OTHER)


def _columns(layers: Iterable[int | None]) -> list[list[int | None]]:
    """Layers in order, tensors outside of any first; beyond `MAX_COLUMNS` neighbours share a column."""
    distinct = sorted(set(layers), key=lambda layer: -1 if layer is None else layer)
    size = -(-len(distinct) // MAX_COLUMNS)
    return [distinct[start : start + size] for start in range(0, len(distinct), size)]


def _layers_label(layers: Sequence[int | None]) -> str:
    first, last = ("–" if layer is None else str(layer) for layer in (layers[0], layers[-1]))
    return first if first == last else f"{first}…{last}"
