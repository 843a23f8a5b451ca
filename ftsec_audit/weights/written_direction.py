"""How much a matrix writes along one direction of its output, and along which it writes least.

W is (out, in); along a unit vector u it writes uᵀW, whose share of what it would write along a direction of
average strength is ‖uᵀW‖²/(‖W‖²/out).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ftsec_audit.errors import NotApplicable, Unsupported
from ftsec_audit.weights.delta import Delta
from ftsec_audit.weights.dense import Dense

_WIDEST = 4096
"""Outputs up to which WWᵀ is held: 64 MB."""
_COLUMNS = 1 << 23
"""Elements of W held beside it."""
_BLOCK, _ITERATIONS = 8, 16
_RIDGE = 1e-6
"""Share of the mean eigenvalue that is added before inverting; float32 sums are no more exact."""


@dataclass(frozen=True)
class Written:
    """What a matrix writes along u, float64 (in,), after and before the change; None without a base."""

    after: Tensor
    before: Tensor | None

    @property
    def lost(self) -> float:
        """1 − ‖uᵀW′‖²/‖uᵀW‖²: 1 where all was removed, negative where it grew; 0 without a base."""
        if self.before is None:
            return 0.0
        return 1 - float(self.after.square().sum() / self.before.square().sum().clamp(min=1e-300))

    def removal(self, norm: float) -> float:
        """Cosine between a change of norm `norm` and −uuᵀW, which removes u from what is written."""
        if self.before is None or norm == 0:
            return 0.0
        overlap = -float((self.after - self.before) @ self.before)
        return overlap / (norm * max(float(self.before.norm()), 1e-300))


def written_along(delta: Delta, u: Tensor) -> Written:
    """Both sides along the unit vector u (out,), in one pass. Raises NotApplicable for what is no matrix."""
    change, u = _dense(delta), u.double()
    after, before = _Projection(change, u), _Projection(change, u)
    has_before = False
    for start, new, old in change.source.blocks():
        after.add(start, new)
        if old is not None:
            has_before = True
            before.add(start, old)
    return Written(after.total, before.total if has_before else None)


def least_written(delta: Delta) -> tuple[Tensor, float]:
    """The unit vector (out,) along which the changed matrix writes least, and that share of the average.

    By inverse iteration on WWᵀ. Raises Unsupported for more than 4096 outputs.
    """
    change = _dense(delta)
    rows = change.shape[0]
    if rows > _WIDEST:
        raise Unsupported(f"{rows} outputs are too many to look for the one written least")
    gram = _gram(change)
    mean = float(gram.diagonal().mean())
    if not (math.isfinite(mean) and mean > 0):
        raise NotApplicable(f"{delta.name} writes nothing, or nothing finite")
    gram.diagonal().add_(_RIDGE * mean)
    factor = torch.linalg.cholesky_ex(gram, check_errors=False).L
    generator = torch.Generator().manual_seed(0)
    basis = torch.randn(rows, min(_BLOCK, rows), generator=generator)
    for _ in range(_ITERATIONS):
        basis = torch.linalg.qr(torch.cholesky_solve(basis, factor)).Q
    inverse = basis.mT @ torch.cholesky_solve(basis, factor)
    if not bool(inverse.isfinite().all()):
        raise NotApplicable(f"{delta.name} writes along too few directions")
    u = basis @ torch.linalg.eigh(inverse).eigenvectors[:, -1]
    return u, float(written_along(delta, u).after.square().sum()) / mean


def _gram(change: Dense) -> Tensor:
    """W′W′ᵀ, float32 (out, out), from runs of inputs."""
    rows, columns = change.shape
    gram = torch.zeros(rows, rows)
    if change.transposed:
        for _, new, _old in change.source.blocks():
            gram += new.float().mT @ new.float()
        return gram
    step = max(1, _COLUMNS // rows)
    for first in range(0, columns, step):
        run = torch.cat([new[:, first : first + step].float() for _, new, _old in change.source.blocks()])
        gram += run @ run.mT
    return gram


class _Projection:
    """uᵀW, summed over blocks of the matrix as stored."""

    def __init__(self, change: Dense, u: Tensor) -> None:
        self._u, self._transposed = u, change.transposed
        self.total = torch.zeros(change.shape[1], dtype=torch.float64)

    def add(self, start: int, block: Tensor) -> None:
        here = slice(start, start + len(block))
        if self._transposed:
            self.total[here] = block.double() @ self._u
        else:
            self.total += self._u[here] @ block.double()


def _dense(delta: Delta) -> Dense:
    if not isinstance(delta.change, Dense) or len(delta.shape) != 2:
        raise NotApplicable(f"{delta.name} is not stored as a matrix")
    return delta.change
