"""How the energy of benign updates falls off: σᵢ²/Σσ² by rank position, and the band of comparable ones.

A drawing, not a test: no rule is decided by it. An update is compared with those of the same rank only, for
a share by position means nothing across ranks.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING

from ftsec_audit.calibration.recipe import Recipe
from ftsec_audit.contracts import Measurements
from ftsec_audit.types import ModuleMeasurement, Population, SpectrumBand
from ftsec_audit.weights.naming import Category, category_of

if TYPE_CHECKING:
    from ftsec_audit.calibration.bank import Calibration
    from ftsec_audit.calibration.pack import Entry

LEVELS = (0.1, 0.3, 0.5, 0.7, 0.9)
"""Quantiles that are kept: each stands for a fifth of the modules."""
_POSITIONS = 32
"""Shares kept of a spectrum, largest first."""
_MOST_SHAPES = 64
_LEAST = 5
"""Repositories below which no band is drawn, as FTA201 compares with nothing below them."""
_ENOUGH = 20
"""Repositories from which on a stratum is not widened."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The spectra of one module type of one artifact: quantiles over its modules, by rank position."""

    role: str
    block: str
    """`attention`, `mlp`, …: some models call modules of both by one name."""
    rank: int
    """How many singular values the updates have."""
    modules: int
    shares: tuple[tuple[float, ...], ...]
    """(5, min(rank, 32)): for each of `LEVELS` the quantile of σᵢ²/Σσ² at each position i."""

    @property
    def kind(self) -> tuple[str, str, int]:
        return self.role, self.block, self.rank


def shapes(modules: Iterable[ModuleMeasurement]) -> tuple[Shape, ...]:
    """One per module type and rank, the most frequent first; updates of zero or not finite have none."""
    spectra: dict[tuple[str, str, int], list[list[float]]] = defaultdict(list)
    for module in modules:
        values = module.values.get("singular_values")
        if isinstance(values, list) and (shares := energy_shares(values)):
            spectra[module.role, category_of(module.name), len(shares)].append(shares[: kept(len(shares))])
    most = sorted(spectra.items(), key=lambda item: (-len(item[1]), item[0]))[:_MOST_SHAPES]
    return tuple(
        Shape(role=role, block=block, rank=rank, modules=len(rows), shares=_quantiles(rows))
        for (role, block, rank), rows in most
    )


def kept(rank: int) -> int:
    """How many positions of a spectrum of this many values are kept."""
    return min(rank, _POSITIONS)


def energy_shares(values: Sequence[float]) -> list[float]:
    """σᵢ²/Σσ²; empty where the values are not the spectrum of an update that changes something."""
    largest = max(values, default=0.0)
    if not 0 < largest < math.inf or not all(0 <= value <= largest for value in values):
        return []
    squares = [(value / largest) ** 2 for value in values]  # divided first: squares of huge values overflow
    total = math.fsum(squares)
    return [square / total for square in squares]


def bands(calibration: Calibration, table: Measurements) -> tuple[SpectrumBand, ...]:
    """For each module type and rank of the subject: the band of comparable benign updates, or why none."""
    own = shapes(table.modules)
    others = calibration.others(table.subject, same=lambda entry: _same(entry.spectra, own)) if own else []
    known = [entry for entry in others if entry.spectra]
    recipe = Recipe.of(table)
    return tuple(_band(shape, calibration.id, recipe, known, bool(others)) for shape in own)


def _band(shape: Shape, id_: str, recipe: Recipe, entries: Sequence[Entry], any_entry: bool) -> SpectrumBand:
    found = _comparable(shape, recipe, entries)
    band = SpectrumBand(
        role=shape.role,
        block=shape.block,
        rank=shape.rank,
        population=Population(id=id_, stratum=found.label, n=len(found.artifacts)),
        repositories=found.repositories,
    )
    if found.repositories >= _LEAST:
        low, median, high = (tuple(found.by_position(level)) for level in (0.1, 0.5, 0.9))
        return replace(band, low=low, median=median, high=high)
    if entries or not any_entry:
        return replace(band, missing=f"{found.repositories} comparable repositories, {_LEAST} needed")
    return replace(band, missing="the calibration was written before packs kept spectra")


@dataclass(frozen=True, kw_only=True)
class _Comparable:
    """The benign artifacts of one stratum that have updates of one kind."""

    label: str
    artifacts: tuple[tuple[str, tuple[Shape, ...]], ...]
    """Repository and the shapes of that kind."""

    @property
    def repositories(self) -> int:
        return len({group for group, _ in self.artifacts})

    def by_position(self, level: float) -> list[float]:
        """The quantile at each position. Repositories weigh the same, and so do the artifacts within one."""
        within = Counter(group for group, _ in self.artifacts)
        rows = [
            (row, 1.0 / (within[group] * len(alike)))
            for group, alike in self.artifacts
            for shape in alike
            for row in shape.shares
        ]
        positions = range(len(rows[0][0]))
        return [_weighted_quantile([(row[i], weight) for row, weight in rows], level) for i in positions]


def _comparable(shape: Shape, recipe: Recipe, entries: Sequence[Entry]) -> _Comparable:
    """The narrowest stratum of enough repositories that have this module type and rank, else the widest.

    Architectures call the same thing by different names. Where even the widest has too few with this module
    type, any type of the same block is taken, and the label says so.
    """
    own = _widest(
        recipe, entries, lambda other: (other.block, other.role) == (shape.block, shape.role), shape
    )
    if own.repositories >= _LEAST or shape.block not in (Category.ATTENTION, Category.MLP):
        return own
    any_type = _widest(recipe, entries, lambda other: other.block == shape.block, shape)
    if any_type.repositories < _LEAST:
        return own
    return replace(any_type, label=f"{any_type.label} · any {shape.block} module")


def _widest(
    recipe: Recipe, entries: Sequence[Entry], alike: Callable[[Shape], bool], shape: Shape
) -> _Comparable:
    best: _Comparable | None = None
    for stratum in recipe.strata():
        members = [
            (entry, tuple(other for other in entry.spectra if other.rank == shape.rank and alike(other)))
            for entry in entries
            if stratum.holds(entry.recipe)
        ]
        artifacts = tuple((entry.provenance.repository.lower(), kind) for entry, kind in members if kind)
        found = _Comparable(label=stratum.label, artifacts=artifacts)
        if best is None or found.repositories > best.repositories:
            best = found
        if found.repositories >= _ENOUGH:
            break
    assert best is not None
    return best


def _weighted_quantile(values: list[tuple[float, float]], level: float) -> float:
    """The smallest value at or below which this share of the weight lies."""
    wanted = level * math.fsum(weight for _, weight in values) * (1 - 1e-12)
    reached = 0.0
    for value, weight in sorted(values):
        reached += weight
        if reached >= wanted:
            return value
    raise ValueError("no values")


def _quantiles(rows: Sequence[Sequence[float]]) -> tuple[tuple[float, ...], ...]:
    """(5, positions), interpolated between the modules."""
    columns = [sorted(column) for column in zip(*rows, strict=True)]
    return tuple(tuple(_interpolated(column, level) for column in columns) for level in LEVELS)


def _interpolated(ordered: Sequence[float], level: float) -> float:
    place = level * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def _same(stored: Sequence[Shape], own: Sequence[Shape]) -> bool:
    """Whether two artifacts agree in every shape to within the rounding of a pack: one is a copy.

    Updates of rank one say nothing here: their spectra are all alike.
    """
    mine = {shape.kind: shape for shape in own}
    told = [shape for shape in stored if shape.rank > 1]
    return bool(told) and all(_agree(shape, mine.get(shape.kind)) for shape in told)


def _agree(stored: Shape, own: Shape | None) -> bool:
    if own is None or own.modules != stored.modules:
        return False
    pairs = zip(chain.from_iterable(stored.shares), chain.from_iterable(own.shares), strict=True)
    return all(math.isclose(a, b, rel_tol=1e-3, abs_tol=1e-9) for a, b in pairs)
