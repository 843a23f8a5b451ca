"""Leading singular directions of a changed matrix that its base does not have."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ftsec_audit.errors import NotApplicable
from ftsec_audit.weights.delta import Delta
from ftsec_audit.weights.dense import Dense
from ftsec_audit.weights.leading_directions import StreamedMatrix, leading_directions

_BASE_DIRECTIONS = 64
"""Leading directions of the base that those of the changed matrix are compared with."""
_EXACT = 1 << 18
"""Elements up to which both spectra are taken in full."""

_Blocks = Callable[[], Iterator[tuple[int, Tensor]]]


@dataclass(frozen=True)
class Direction:
    """One leading left singular direction of a changed matrix."""

    strength: float
    """Its singular value, by the base's largest."""
    cosine: float
    """Largest |cosine| with a leading left singular direction of the base."""
    gain: float
    """‖Wᵀu‖/σ′: what the base makes along u by what the changed matrix does; near 1 for its own."""


def strongest_directions(delta: Delta, count: int) -> list[Direction]:
    """The `count` leading left singular directions of W + ΔW against those of W, strongest first.

    For finite DENSE changes; five to ten passes over both matrices where they are not small.
    """
    change = delta.change
    if not isinstance(change, Dense) or min(change.shape) == 0:
        raise NotApplicable(f"{delta.name} has no base matrix that is stored")
    base = _matrix(change, _before(change))
    directions, sigma = _left(change, _matrix(change, _after(change)), count)
    own, own_sigma = _left(change, base, min(_BASE_DIRECTIONS, *change.shape))
    gains = _read_along(change, base, directions.float()).double().norm(dim=0)
    cosines = (own.double().mT @ directions.double()).abs().amax(dim=0)
    largest = float(own_sigma[0])
    return [
        Direction(s / largest, c, g / s)
        for s, c, g in zip(sigma.tolist(), cosines.tolist(), gains.tolist(), strict=True)
        if s > 0
    ]


def _left(change: Dense, matrix: StreamedMatrix, count: int) -> tuple[Tensor, Tensor]:
    """Leading left singular vectors (out, k) of a matrix as stored, and their values."""
    rows, columns = matrix.shape
    if rows * columns <= _EXACT:
        whole = torch.cat([block.double().clone() for _, block in matrix.blocks()])
        u, sigma, vt = torch.linalg.svd(whole, full_matrices=False)
        return (vt.mT if change.transposed else u)[:, :count], sigma[:count]
    u, sigma, v = leading_directions(matrix, count)
    return v if change.transposed else u, sigma


def _read_along(change: Dense, matrix: StreamedMatrix, directions: Tensor) -> Tensor:
    """Wᵀu of every column u, (in, k)."""
    if change.transposed:
        return matrix.times(directions)
    product = torch.zeros(matrix.shape[1], directions.shape[1])
    for start, block in matrix.blocks():
        product += block.mT @ directions[start : start + len(block)]
    return product


def _matrix(change: Dense, blocks: _Blocks) -> StreamedMatrix:
    norm = math.sqrt(sum(float(block.double().square().sum()) for _, block in blocks()))
    if not (math.isfinite(norm) and norm > 0):
        raise NotApplicable("one side is zero, or not finite")
    return StreamedMatrix(change.source.shape, norm, blocks)


def _after(change: Dense) -> _Blocks:
    return lambda: ((start, new.float()) for start, new, _ in change.source.blocks())


def _before(change: Dense) -> _Blocks:
    def blocks() -> Iterator[tuple[int, Tensor]]:
        for start, _, old in change.source.blocks():
            if old is None:
                raise NotApplicable("there is no base matrix")
            yield start, old.float()

    return blocks
