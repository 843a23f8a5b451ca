"""The numbers behind the drawings: every measured module by its type, as the cells of a table."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from ftsec_audit.report import modules as of_module
from ftsec_audit.report.heat_map import MAX_NAME
from ftsec_audit.report.phrases import clipped, number
from ftsec_audit.types import ModuleMeasurement, Report

MAX_MODULES = 10_000
"""Those that detections name are shown in any case."""


@dataclass(frozen=True, kw_only=True)
class Row:
    module: int
    """Its place among the measurements."""
    layer: str
    name: str
    shape: str
    numbers: tuple[str, ...]
    """One per column of the table; empty where nothing was measured."""
    named_by: tuple[str, ...]
    """The rules whose detections point at it."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """All modules of one type, layer by layer."""

    role: str
    rows: tuple[Row, ...]
    named: int
    """How many of them detections name."""


@dataclass(frozen=True, kw_only=True)
class ModuleTable:
    columns: tuple[of_module.Statistic, ...]
    groups: tuple[Group, ...]
    left_out: int

    @property
    def group_of(self) -> dict[str, int]:
        """Module type → its place among the groups."""
        return {group.role: place for place, group in enumerate(self.groups)}

    @property
    def shown(self) -> frozenset[int]:
        return frozenset(row.module for group in self.groups for row in group.rows)


def module_table(report: Report) -> ModuleTable:
    """Modules with at least one of the numbers that are listed."""
    named_by = of_module.named_by(report)
    numbers = {
        place: [one.of(module) for one in of_module.LISTED]
        for place, module in enumerate(report.measurements)
    }
    measured = {place: row for place, row in numbers.items() if any(value is not None for value in row)}
    first = sorted(measured, key=lambda place: report.measurements[place].name not in named_by)
    kept = sorted(first[:MAX_MODULES], key=lambda place: _order(report.measurements[place]))
    used = [i for i in range(len(of_module.LISTED)) if any(measured[place][i] is not None for place in kept)]
    groups: dict[str, list[Row]] = defaultdict(list)
    for place in kept:
        module = report.measurements[place]
        groups[module.role].append(
            Row(
                module=place,
                layer="–" if module.layer is None else str(module.layer),
                name=clipped(module.name, MAX_NAME),
                shape="×".join(map(str, module.shape)),
                numbers=tuple("" if (x := measured[place][i]) is None else number(x) for i in used),
                named_by=named_by.get(module.name, ()),
            )
        )
    return ModuleTable(
        columns=tuple(of_module.LISTED[i] for i in used),
        groups=tuple(
            Group(role=role, rows=tuple(rows), named=sum(bool(row.named_by) for row in rows))
            for role, rows in groups.items()
        ),
        left_out=len(measured) - len(kept),
    )


def _order(module: ModuleMeasurement) -> tuple[int, str]:
    return (-1 if module.layer is None else module.layer, module.name)
