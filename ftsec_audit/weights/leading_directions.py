"""Leading singular directions of a matrix that is only seen in blocks of rows: a screen, then a closer look.

Subspace iteration (Halko, Martinsson & Tropp, arXiv 0909.4061, algorithm 4.4) in the form that needs fewest
passes: WᵀWΩ takes one pass over W, since every block contributes Wᵢᵀ(WᵢΩ) by itself. With Q an orthonormal
basis of that, σ and the singular vectors are those of WQ, a second pass. σ never exceeds the true one.

Against the Marchenko–Pastur edge of noise of the same energy, the largest σ of noise comes out at 0.86, a
spike at twice the edge at 0.95 of itself (1400 × 1024). Only what exceeds the edge is worth two passes more,
after which that spike is right to 0.1 % and the sixteenth of a power law to 4 %. Tried and not used: 24
vectors with four products, which cost more and see noise and spikes less well apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ftsec_audit.weights.linalg import marchenko_pastur_edge

_WIDTH = 32
"""Vectors iterated together: twice as many as are asked for, and no dearer than 24 in one product."""


@dataclass(frozen=True)
class StreamedMatrix:
    """A matrix W (rows, columns) in blocks of rows from the top."""

    shape: tuple[int, int]
    norm: float
    """‖W‖_F, finite and not zero."""
    blocks: Callable[[], Iterator[tuple[int, Tensor]]]
    """A new pass over (first row, float32 rows); a block is valid until the next."""

    def times(self, x: Tensor) -> Tensor:
        """W·X, float32 (rows, k), in one pass."""
        product = torch.zeros(self.shape[0], x.shape[1])
        for start, block in self.blocks():
            torch.mm(block, x, out=product[start : start + len(block)])
        return product

    def gram_times(self, x: Tensor) -> Tensor:
        """WᵀW·X/‖W‖², float32 (columns, k), in one pass."""
        turned = torch.zeros(x.shape[1], self.shape[1])
        x = x / self.norm  # one norm at a time: the square may leave the range of float32
        for _, block in self.blocks():
            turned.addmm_((block @ x).mT, block)
        return turned.mT.div_(self.norm)

    @property
    def noise_edge(self) -> float:
        """Largest singular value that noise of the same energy would have."""
        rows, columns = self.shape
        return marchenko_pastur_edge(rows, columns, self.norm / (rows * columns) ** 0.5)


def leading_directions(matrix: StreamedMatrix, count: int, *, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """U (rows, k), σ (k,) in float64 and V (columns, k), k = min(count, rows, columns): at least a screen."""
    width = min(max(_WIDTH, 2 * count), *matrix.shape)
    start = torch.randn(matrix.shape[1], width, generator=torch.Generator().manual_seed(seed))
    u, sigma, v = _within(matrix, start)
    if float(sigma[0]) > matrix.noise_edge:
        u, sigma, v = _within(matrix, v)
    return u[:, :count], sigma[:count], v[:, :count]


def _within(matrix: StreamedMatrix, start: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The singular value decomposition of W on the span of WᵀW·start."""
    basis = torch.linalg.qr(matrix.gram_times(start)).Q
    q, r = torch.linalg.qr(matrix.times(basis))
    left, sigma, right = torch.linalg.svd(r.double())
    return q @ left.float(), sigma, basis @ right.mT.float()
