"""A change known only as stored matrices: streamed in blocks, never held whole.

One pass gives every moment at once; singular directions take two passes more, or four. Memory is a few blocks
whatever the size of the tensors.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cached_property

import torch
from torch import Tensor

from ftsec_audit.errors import Unsupported
from ftsec_audit.weights.change import Change
from ftsec_audit.weights.factored import positive_largest
from ftsec_audit.weights.leading_directions import StreamedMatrix, leading_directions
from ftsec_audit.weights.moments import BLOCK_ELEMENTS, Moments, Source, deltas

_EXACT_WORK = 1 << 26
"""rows · columns · min(rows, columns) up to which a spectrum is computed in full."""

_TOP = 16
"""Directions looked for above that."""


class Dense(Change):
    """Difference of two streamed matrices, or one matrix where there is nothing to compare it with."""

    def __init__(self, source: Source, *, transposed: bool = False) -> None:
        rows, columns = source.shape
        self.shape = (columns, rows) if transposed else (rows, columns)
        self.source = source
        self.transposed = transposed

    @cached_property
    def moments(self) -> Moments:
        """All sums, from one pass over the files."""
        return Moments.of(self.source, with_columns=self.transposed)

    @property
    def spectrum_is_exact(self) -> bool:
        """Whether `singular_values` are all of them, or the leading ones from a randomised screen."""
        rows, columns = self.shape
        return rows * columns * min(rows, columns) <= _EXACT_WORK

    def finite(self) -> bool:
        return self.moments.finite

    def is_zero(self) -> bool:
        return not bool(self.moments.changed.any())

    def frobenius_norm(self) -> float:
        return _root(self.moments.energy)

    def base_norm(self) -> float | None:
        """‖W‖_F before the change, None where that is unknown."""
        energy = self.moments.base_energy
        return None if energy is None else _root(energy)

    def singular_values(self) -> Tensor:
        return self._svd[1]

    def singular_vectors(self) -> tuple[Tensor, Tensor]:
        return self._svd[0], self._svd[2]

    def entry_kurtosis(self) -> float:
        energy = self.moments.energy
        return math.prod(self.shape) * self.moments.fourth / energy**2 if energy != 0 else 0.0

    def row_norms(self) -> Tensor:
        energies = self.moments.column_energies if self.transposed else self.moments.row_energies
        assert energies is not None
        return energies.sqrt()

    def blocks(self, rows: int) -> Iterator[Tensor]:
        parts = [delta.flatten().clone() for _, delta in deltas(self.source)]
        stored = torch.cat([*parts, torch.zeros(0)]).reshape(self.source.shape)
        yield from (stored.mT if self.transposed else stored).split(max(1, rows))

    @cached_property
    def _svd(self) -> tuple[Tensor, Tensor, Tensor]:
        """U, σ, V."""
        if max(self.source.shape) > BLOCK_ELEMENTS and min(self.shape) == 1:
            raise Unsupported("a vector of this length has no singular directions worth the memory")
        energy = self.moments.energy
        if not math.isfinite(energy):
            nan = torch.full((1,), math.nan, dtype=torch.float64)
            return nan.expand(self.shape[0], 1), nan, nan.expand(self.shape[1], 1)
        if self.spectrum_is_exact:
            u, sigma, v = _thin_svd(self.matrix().double())
            u, v = positive_largest(u, v)
            return u, sigma, v
        if energy == 0:
            return torch.zeros(self.shape[0], 1), torch.zeros(1).double(), torch.zeros(self.shape[1], 1)
        matrix = StreamedMatrix(self.source.shape, _root(energy), lambda: deltas(self.source))
        u, sigma, v = leading_directions(matrix, _TOP)
        u, v = positive_largest(*((v, u) if self.transposed else (u, v)))
        return u, sigma, v


def _root(energy: float) -> float:
    return math.sqrt(energy) if energy >= 0 else math.nan


def _thin_svd(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """U, σ, V; LAPACK takes tall matrices four times faster than wide ones."""
    if matrix.shape[0] < matrix.shape[1]:
        v, sigma, u = _thin_svd(matrix.mT)
        return u, sigma, v
    u, sigma, vt = torch.linalg.svd(matrix, full_matrices=False)
    return u, sigma, vt.mT
