"""A change held as a Kronecker product, ΔW = s·(C ⊗ D): everything about it follows from C and D."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cached_property

import torch
from torch import Tensor

from ftsec_audit.weights.change import Change
from ftsec_audit.weights.factored import positive_largest
from ftsec_audit.weights.linalg import kurtosis


class Kronecker(Change):
    """LoKr (arXiv 2309.14859). C (m, n), D (p, q); ΔW is (m·p, n·q)."""

    def __init__(self, left: Tensor, right: Tensor, scale: float) -> None:
        self._left = left.double()
        self._right = right.double()
        self._scale = scale
        self.shape = (left.shape[0] * right.shape[0], left.shape[1] * right.shape[1])

    def finite(self) -> bool:
        parts = (self._left, self._right)
        return math.isfinite(self._scale) and all(bool(part.isfinite().all()) for part in parts)

    def frobenius_norm(self) -> float:
        return abs(self._scale) * float(self._left.norm() * self._right.norm())

    def singular_values(self) -> Tensor:
        return self._svd[1]

    def singular_vectors(self) -> tuple[Tensor, Tensor]:
        return self._svd[0], self._svd[2]

    def entry_kurtosis(self) -> float:
        return kurtosis(self._left) * kurtosis(self._right)

    def row_norms(self) -> Tensor:
        return abs(self._scale) * torch.kron(self._left.norm(dim=1), self._right.norm(dim=1))

    def blocks(self, rows: int) -> Iterator[Tensor]:
        step = self._right.shape[0]
        whole = (torch.kron(row[None], self._right) * self._scale for row in self._left)
        for block in whole:  # one row of C makes `step` rows of ΔW
            yield from block.float().split(max(1, min(rows, step)))

    @cached_property
    def _svd(self) -> tuple[Tensor, Tensor, Tensor]:
        """U, σ, V: the products of the factors' own, sorted."""
        if not self.finite():
            nan = torch.full((1,), math.nan, dtype=torch.float64)
            return nan.expand(self.shape[0], 1), nan, nan.expand(self.shape[1], 1)
        u1, s1, v1 = torch.linalg.svd(self._left, full_matrices=False)
        u2, s2, v2 = torch.linalg.svd(self._right, full_matrices=False)
        sigma, order = torch.kron(s1, s2).sort(descending=True)
        u = torch.kron(u1, u2)[:, order]
        v = torch.kron(v1.mT.contiguous(), v2.mT.contiguous())[:, order]
        u, v = positive_largest(u, v)
        return u, sigma * abs(self._scale), v if self._scale >= 0 else -v
