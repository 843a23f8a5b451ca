"""A change held as two thin factors, ΔW = s·B·A, measured together with its peers of equal shape."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cached_property

import torch
from torch import Tensor

from ftsec_audit.weights import factored
from ftsec_audit.weights.change import Change
from ftsec_audit.weights.factors import Factors, HeldFactors
from ftsec_audit.weights.fourth_moment import directions, entry_kurtosis


class FactorBatch:
    """Factors of many modules of one shape and dtype: B (n, rows, r), Aᵀ (n, columns, r), scales (n,).

    Each statistic is computed for all of them at once when it is first asked for one of them: at these
    sizes the cost of a call exceeds that of the arithmetic.
    """

    def __init__(self, left: Factors, right: Factors, scales: Sequence[float]) -> None:
        self.left = left
        self.right = right
        self.scale = list(map(float, scales))
        self.scales = torch.tensor(scales, dtype=torch.float64)

    @cached_property
    def grams(self) -> tuple[Tensor, Tensor]:
        """BᵀB and AAᵀ, (n, r, r) each."""
        return factored.grams(self.left, self.right)

    @cached_property
    def svd(self) -> factored.CoreSvd:
        return factored.core_svd(*self.grams)

    @cached_property
    def finite(self) -> list[bool]:
        # A Gram matrix is finite on its diagonal exactly when every entry of the factor is: what overflowed
        # in float32 was taken again in float64.
        diagonals = [product.diagonal(dim1=-2, dim2=-1) for product in self.grams]
        finite: list[bool] = torch.cat(diagonals, dim=-1).isfinite().all(-1).tolist()
        return finite

    @cached_property
    def norms(self) -> list[float]:
        norms: list[float] = (factored.frobenius_norms(*self.grams) * self.scales.abs()).tolist()
        return norms

    @cached_property
    def singular_values(self) -> Tensor:
        kept = min(self.left.shape[1], self.right.shape[1])
        return factored.singular_values(*self.grams)[:, :kept] * self.scales.abs()[:, None]

    @cached_property
    def vectors(self) -> tuple[Tensor, Tensor]:
        """The singular vectors that anything here looks at: (n, k, rows) and (n, k, columns), float32."""
        k = directions(self.svd.sigma)
        u = factored.coordinates(self.left, self.svd.writers[:, :, :k])
        return u, factored.coordinates(self.right, self.svd.readers[:, :, :k])

    @cached_property
    def kurtoses(self) -> list[float]:
        kurtoses: list[float] = entry_kurtosis(self.left, self.right, self.svd, self.vectors).tolist()
        return kurtoses

    @cached_property
    def top_vectors(self) -> tuple[Tensor, Tensor]:
        """Leading left (n, rows) and right (n, columns) singular vectors, float32; zero for a zero update."""
        u, v = (vectors[:, 0] for vectors in self.vectors)
        signs = u.gather(-1, u.abs().argmax(-1, keepdim=True)).sign()
        return u * signs, v * signs


class LowRank(Change):
    """One module of a batch."""

    def __init__(self, batch: FactorBatch, index: int) -> None:
        self._batch = batch
        self._index = index
        self.shape = (batch.left.shape[1], batch.right.shape[1])

    @classmethod
    def of(cls, left: Tensor, right: Tensor, scale: float = 1.0) -> LowRank:
        """From single factors B (rows, r) and A (r, columns)."""
        return cls(FactorBatch(HeldFactors(left[None]), HeldFactors(right.mT[None]), [scale]), 0)

    @property
    def left(self) -> Tensor:
        """B (rows, r) as stored."""
        return self._batch.left.single(self._index)

    @property
    def right(self) -> Tensor:
        """A (r, columns) as stored."""
        return self._batch.right.single(self._index).mT

    @property
    def scale(self) -> float:
        return self._batch.scale[self._index]

    @property
    def _sign(self) -> float:
        """A negative scale turns the right vectors round."""
        return -1.0 if self.scale < 0 else 1.0

    def finite(self) -> bool:
        return self._batch.finite[self._index] and math.isfinite(self.scale)

    def frobenius_norm(self) -> float:
        return self._batch.norms[self._index]

    def singular_values(self) -> Tensor:
        return self._batch.singular_values[self._index]

    def singular_vectors(self) -> tuple[Tensor, Tensor]:
        u, _, v = factored.svd(self.left, self.right)
        return u, v * self._sign

    def top_singular_vectors(self) -> tuple[Tensor, Tensor]:
        u, v = self._batch.top_vectors
        return u[self._index], v[self._index] * self._sign

    def entry_kurtosis(self) -> float:
        return self._batch.kurtoses[self._index]

    def row_norms(self) -> Tensor:
        return factored.row_norms(self.left, self._batch.grams[1][self._index]) * abs(self.scale)

    def column_norms(self) -> Tensor:
        """‖column‖ of every column, float64 (columns,)."""
        return factored.row_norms(self.right.mT, self._batch.grams[0][self._index]) * abs(self.scale)

    def blocks(self, rows: int) -> Iterator[Tensor]:
        left, right = self.left, self.right.float() * self.scale
        for start in range(0, self.shape[0], max(1, rows)):
            yield left[start : start + rows].float() @ right
