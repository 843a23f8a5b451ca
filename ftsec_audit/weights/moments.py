"""Every moment of a change in one pass over its blocks."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ftsec_audit.weights import kernels
from ftsec_audit.weights.factors import Scratch

BLOCK_ELEMENTS = 1 << 18
"""Elements of either side in memory at once: 1 MiB of float32, so that a block stays in cache."""

_FLOAT32_ENERGIES = (1e-15, 1e15)
"""Σx² of a block's largest row between which its fourth powers can be summed in float32."""


class Source(ABC):
    """The stored rows of a tensor after and before the change, block by block from the top."""

    shape: tuple[int, int]
    """Of the matrix as stored. A tensor of fewer dimensions is one row, of more is flattened to the right."""

    @abstractmethod
    def blocks(self) -> Iterator[tuple[int, Tensor, Tensor | None]]:
        """(first row, rows after, rows before or None for nothing), any real dtype, each (k, columns).

        A matrix whose rows are longer than BLOCK_ELEMENTS has one row, which comes in several blocks. A
        block is valid until the next one is asked for and must not be written to.
        """

    def beyond(self) -> Iterator[Tensor]:
        """What the subject stores and the base has nothing to compare with, in blocks."""
        yield from ()

    def rows(self, indices: Sequence[int]) -> tuple[Tensor, Tensor | None]:
        """The stored rows of these numbers, after and before, float32 (k, columns); raises IndexError."""
        found: dict[int, tuple[Tensor, Tensor | None]] = {}
        wanted = sorted(set(indices))
        for start, after, before in self.blocks():
            for index in wanted[bisect_left(wanted, start) : bisect_left(wanted, start + len(after))]:
                row = None if before is None else before[index - start].to(torch.float32, copy=True)
                found[index] = after[index - start].to(torch.float32, copy=True), row
        if missing := [index for index in wanted if index not in found]:
            raise IndexError(f"no row {missing[0]} in a matrix of {self.shape[0]}")
        return _stacked([found[index] for index in indices], self.shape[1])


@dataclass(frozen=True)
class Held(Source):
    """Matrices small enough to be in memory, e.g. a vector or a few rows."""

    after: Tensor
    before: Tensor | None = None

    @property
    def shape(self) -> tuple[int, int]:  # type: ignore[override]
        return self.after.shape[0], self.after.shape[1]

    def blocks(self) -> Iterator[tuple[int, Tensor, Tensor | None]]:
        step = max(1, BLOCK_ELEMENTS // max(1, self.shape[1]))
        for start in range(0, self.shape[0], step):
            before = None if self.before is None else self.before[start : start + step]
            yield start, self.after[start : start + step], before


@dataclass
class Moments:
    """Sums over a change, in float64. Rows and columns are those of the matrix as stored."""

    row_energies: Tensor
    """Σx² of every row, float64 (rows,)."""
    column_energies: Tensor | None
    changed: Tensor
    """Which rows differ in any entry, bool (rows,)."""
    energy: float = 0.0
    """Σx²."""
    fourth: float = 0.0
    """Σx⁴."""
    base_energy: float | None = None
    """Σx² of the matrix before the change, None where that is unknown."""
    finite: bool = True
    """Whether every entry after the change is finite."""

    @classmethod
    def of(cls, source: Source, *, with_columns: bool = False) -> Moments:
        """One pass over all blocks; `with_columns` asks for the column energies too."""
        rows, columns = source.shape
        moments = cls(
            row_energies=torch.zeros(rows, dtype=torch.float64),
            column_energies=torch.zeros(columns, dtype=torch.float64) if with_columns else None,
            changed=torch.zeros(rows, dtype=torch.bool),
        )
        scratches = Scratch(), Scratch()
        for start, after, before in source.blocks():
            if not moments._add_at_once(start, after, before):
                moments._add(_difference(start, after, before, *scratches))
        moments.finite &= all(bool(block.isfinite().all()) for block in source.beyond())
        moments.energy = float(moments.row_energies.sum())
        return moments

    def _add_at_once(self, start: int, after: Tensor, before: Tensor | None) -> bool:
        """In one pass, where there is one and no square in it leaves the range of float32."""
        sums = kernels.moments(after, before, with_columns=self.column_energies is not None)
        if sums is None:
            return False
        highest = float(sums.by_row.amax())
        least, most = _FLOAT32_ENERGIES
        zero = highest == 0 and not bool(sums.changed.any())
        if not (zero or least < highest < most) or not math.isfinite(sums.before):
            return False
        here = slice(start, start + len(after))
        self.row_energies[here] += sums.by_row
        self.changed[here] |= sums.changed
        self.fourth += sums.fourth
        if before is not None:
            self.base_energy = (self.base_energy or 0.0) + sums.before
        if self.column_energies is not None and sums.by_column is not None:
            self.column_energies += sums.by_column
        return True

    def _add(self, block: Difference) -> None:
        if block.before is not None:
            self.base_energy = (self.base_energy or 0.0) + _energy(block.before)
        here = slice(block.start, block.start + block.delta.shape[0])
        squares = torch.mul(block.delta, block.delta, out=block.spare)
        rows = squares.sum(1)
        lowest, highest = (float(end) for end in rows.aminmax()) if rows.numel() else (0.0, 0.0)
        least, most = _FLOAT32_ENERGIES
        if not least < highest < most:
            squares = block.delta.double().square_()
            rows = squares.sum(1)
            if not math.isfinite(float(rows.sum())):
                self.finite = self.finite and bool(block.after.isfinite().all())
        self.changed[here] |= lowest > 0 or _changed(block.delta, rows)
        self.row_energies[here] += rows
        if self.column_energies is not None:
            self.column_energies += squares.sum(0)
        flat = squares.view(-1)
        self.fourth += float(torch.dot(flat, flat))


@dataclass(frozen=True)
class Difference:
    """A block of a source in float32; everything in memory that the next block overwrites."""

    start: int
    """Its first row."""
    after: Tensor
    """As stored."""
    before: Tensor | None
    delta: Tensor
    """after − before, or `after` where there is nothing before."""
    spare: Tensor
    """Memory of the same shape for whatever is made of it; may be that of `before`."""


def differences(source: Source) -> Iterator[Difference]:
    """The blocks of a source, in the same two blocks of memory throughout."""
    scratches = Scratch(), Scratch()
    for start, after, before in source.blocks():
        yield _difference(start, after, before, *scratches)


def deltas(source: Source) -> Iterator[tuple[int, Tensor]]:
    """(first row, after − before) of every block, float32, in the same memory throughout."""
    first, second = Scratch(), Scratch()
    for start, after, before in source.blocks():
        delta = first.take(after.shape, torch.float32)
        if before is None or not kernels.difference(after, before, delta):
            delta = _difference(start, after, before, first, second).delta
        yield start, delta


def _difference(
    start: int, after: Tensor, before: Tensor | None, first: Scratch, second: Scratch
) -> Difference:
    delta, old = first.converted(after, torch.float32), None
    if before is not None:
        old = second.converted(before, torch.float32)
        delta = torch.sub(delta, old, out=first.take(after.shape, torch.float32))
    return Difference(start, after, old, delta, second.take(after.shape, torch.float32))


def _changed(delta: Tensor, energies: Tensor) -> Tensor:
    """Which rows are not zero. Squares vanish before their roots do; NaN is not zero."""
    changed = energies != 0
    if not bool(changed.all()) and delta.numel():
        quiet = delta[~changed]
        changed[~changed] = (quiet.amax(1) != 0) | (quiet.amin(1) != 0)
    return changed


def _energy(values: Tensor) -> float:
    energy = float(torch.dot(values.flatten(), values.flatten()))
    return energy if math.isfinite(energy) else float(values.double().square().sum())


def _stacked(rows: list[tuple[Tensor, Tensor | None]], columns: int) -> tuple[Tensor, Tensor | None]:
    if not rows:
        return torch.zeros(0, columns), None
    before = [old for _, old in rows if old is not None]
    return torch.stack([new for new, _ in rows]), torch.stack(before) if before else None
