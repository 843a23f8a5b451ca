"""Rows of a large matrix that point the same way, without comparing every pair.

Signs of the products with random planes agree where two directions do (Charikar, STOC 2002): rows that share
all the signs of one of several tables become candidates, those that agree in nearly all signs of all tables
are read again and compared exactly. Rows are first folded with random signs (count-sketch), which is linear:
a multiple of a row keeps every sign. The planes are orthogonal to the mean row, which all rows lean towards.

Rows that many others are parallel to, as those of tokens that training never met, are left out as far as
long runs of equal signs show it; each pair says how many rows its own are close to. Memory is a block, a
thousand rows of a sample, some 60 bytes a row, and the rows that are read again.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ftsec_audit.weights.delta import Delta
from ftsec_audit.weights.moments import BLOCK_ELEMENTS

_TABLES, _BITS = 8, 20
_FOLDED = 256
"""Numbers that a row is folded to before it meets the planes."""
_SAMPLE = 1024
"""Rows from which the mean is taken."""
_RUN = 32
"""Rows with the signs of one table in common from which on they are a crowd."""
_DIFFERING = 18
"""Signs of the 160 in which candidates may differ: at a cosine of 0.99 it is 7.2 ± 2.6."""
_READ_AGAIN = 512
_PRODUCTS = 1 << 34
"""Of two numbers, for trained rows against a vocabulary: ten seconds or so."""
_ONES = np.array([number.bit_count() for number in range(1 << _BITS // 2)], np.uint8)
_SMALLEST = 1e-3
"""Share of the median norm below which a row has no direction to speak of."""


@dataclass(frozen=True, kw_only=True)
class ParallelRows:
    """Two rows of one direction."""

    first: int
    second: int
    distance: float
    """1 − cos of the two rows."""
    distance_before: float | None
    """The same of the base's rows, None without a base."""
    log_ratio: float
    """|ln ‖first‖ − ln ‖second‖|."""
    identical: bool
    """Whether they are equal bit for bit."""
    neighbours: int
    """About how many rows are close to either; 1 where they have each other alone."""


@dataclass(frozen=True)
class _Signs:
    """What one pass keeps of every row."""

    codes: NDArray[np.int32]
    """(rows, tables), the signs of a table as one number."""
    norms: Tensor
    """float32 (rows,); what overflows is not finite."""


def parallel_rows(delta: Delta, cosine: float) -> list[ParallelRows]:
    """Pairs of rows whose cosine is at least `cosine`, closest first; rows that are not finite have none.

    Raises as `Delta.stored_rows` does.
    """
    if len(delta.shape) != 2 or min(delta.shape) < 2:
        return []
    sample, step = _sample(delta)
    signs = _signs(delta, sample)
    usable = _usable(signs.norms)
    rows = _candidates(signs.codes, usable)
    if not rows:
        return []
    after, before = delta.rows(rows)
    agreeing = [
        int((_differing(signs.codes[usable], own) <= _DIFFERING).sum()) - 1 for own in signs.codes[rows]
    ]
    others = sample[[number * step not in rows for number in range(len(sample))]]
    parallel = (_distances(after, others)[0] <= 1 - cosine).sum(dim=1).tolist()
    neighbours = [
        max(close, step * hits if hits > 1 else 0) for close, hits in zip(agreeing, parallel, strict=True)
    ]
    pairs = _pairs(rows, neighbours, after, before, cosine)
    return sorted(pairs, key=lambda pair: (pair.distance, pair.first))


def trained_rows(delta: Delta, cosine: float) -> tuple[list[ParallelRows], bool]:
    """The same for rows that were trained alone: with one another, and with all other rows of the base.

    And whether these were looked at: not where the base's matrix is not known, or where it would take more
    than `_PRODUCTS`.
    """
    numbers = list(delta.row_numbers or ())
    after, before = delta.rows(numbers)
    pairs = list(_pairs(numbers, [1] * len(numbers), after, before, cosine))
    base = delta.tokens.weights.find(delta.name) if delta.tokens else None
    if base is None or before is None or len(numbers) * math.prod(base.shape) > _PRODUCTS:
        return pairs, False
    start = 0
    for block in base.blocks(BLOCK_ELEMENTS):
        rows = block.float()
        distances, norms = _distances(after, rows)
        earlier = _distances(before, rows)[0]
        lengths = rows.double().norm(dim=1)
        pairs += [
            ParallelRows(
                first=numbers[i],
                second=start + j,
                distance=max(0.0, float(distances[i, j])),
                distance_before=float(earlier[i, j]),
                log_ratio=abs(math.log(float(norms[i]) / float(lengths[j]))),
                identical=bool(torch.equal(after[i], rows[j])),
                neighbours=1,
            )
            for i, j in (distances <= 1 - cosine).nonzero().tolist()
            if start + j not in numbers
        ]
        start += len(rows)
    return sorted(pairs, key=lambda pair: (pair.distance, pair.first)), True


def _sample(delta: Delta) -> tuple[Tensor, int]:
    """Every so manieth row, and how manieth."""
    step = math.ceil(delta.stored_shape[0] / _SAMPLE)
    return delta.stored_rows(range(0, delta.stored_shape[0], step))[0], step


def _signs(delta: Delta, sample: Tensor) -> _Signs:
    planes, flips = _planes(sample)
    count = delta.stored_shape[0]
    codes, norms = np.zeros((count, _TABLES), np.int32), torch.zeros(count)
    places = 1 << np.arange(_BITS, dtype=np.int32)
    for start, rows in delta.stored_blocks():
        positive = (_folded(rows, flips) @ planes > 0).numpy().reshape(len(rows), _TABLES, _BITS)
        codes[start : start + len(rows)] = positive @ places
        norms[start : start + len(rows)] = rows.norm(dim=1)
    return _Signs(codes, norms)


def _planes(sample: Tensor) -> tuple[Tensor, Tensor]:
    """Normals (folded, tables · bits) of the planes, and the signs (width,) with which rows are folded."""
    generator = torch.Generator().manual_seed(0)
    flips = torch.randint(0, 2, (sample.shape[1],), generator=generator).float() * 2 - 1
    mean = _folded(sample[sample.isfinite().all(dim=1)], flips).sum(dim=0)
    normals = torch.randn(len(mean), _TABLES * _BITS, generator=generator)
    if not float(mean.norm()) > 0:
        return normals, flips
    mean = mean / mean.norm()
    return normals - torch.outer(mean, mean @ normals), flips


def _folded(rows: Tensor, flips: Tensor) -> Tensor:
    """(k, width) → (k, at most _FOLDED): sums of entries with random signs."""
    width = rows.shape[1]
    if width <= _FOLDED:
        return rows
    flipped = torch.nn.functional.pad(rows * flips, (0, -width % _FOLDED))
    return flipped.reshape(len(rows), -1, _FOLDED).sum(dim=1)


def _usable(norms: Tensor) -> NDArray[np.int64]:
    """Numbers of the rows that have a direction."""
    finite = norms[norms.isfinite() & (norms > 0)]
    least = _SMALLEST * float(finite.median()) if len(finite) else 0.0
    return (norms.isfinite() & (norms > least)).nonzero()[:, 0].numpy()


def _candidates(codes: NDArray[np.int32], usable: NDArray[np.int64]) -> list[int]:
    """Rows that agree with another in nearly all signs; those that agree most if there are too many."""
    fewest = np.full(len(codes), _TABLES * _BITS, np.uint8)
    for table in range(_TABLES):
        for first, second in _neighbours(codes[usable, table]):
            one, other = usable[first], usable[second]
            differing = _differing(codes[one], codes[other])
            np.minimum.at(fewest, one, differing)
            np.minimum.at(fewest, other, differing)
    closest = np.argsort(fewest, kind="stable")[:_READ_AGAIN]
    return sorted(closest[fewest[closest] <= _DIFFERING].tolist())


def _differing(one: NDArray[np.int32], other: NDArray[np.int32]) -> NDArray[np.uint8]:
    """In how many signs rows differ."""
    differing: NDArray[np.uint8] = _ones(one ^ other).sum(axis=1, dtype=np.uint8)
    return differing


def _ones(codes: NDArray[np.int32]) -> NDArray[np.uint8]:
    """How many bits of each number are set."""
    half = _BITS // 2
    ones: NDArray[np.uint8] = _ONES[codes & ((1 << half) - 1)] + _ONES[codes >> half]
    return ones


def _neighbours(codes: NDArray[np.int32]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Pairs of positions of equal codes, none from a run longer than _RUN."""
    order = np.argsort(codes, kind="stable")
    _, runs, lengths = np.unique(codes[order], return_inverse=True, return_counts=True)
    order, runs = order[lengths[runs] <= _RUN], runs[lengths[runs] <= _RUN]
    for step in range(1, _RUN):
        equal = runs[step:] == runs[:-step]
        if not equal.any():
            return
        yield order[:-step][equal], order[step:][equal]


def _pairs(
    rows: list[int], neighbours: list[int], after: Tensor, before: Tensor | None, cosine: float
) -> Iterator[ParallelRows]:
    distances, norms = _distances(after, after)
    earlier = None if before is None else _distances(before, before)[0]
    for i, j in (distances <= 1 - cosine).triu(diagonal=1).nonzero().tolist():
        yield ParallelRows(
            first=rows[i],
            second=rows[j],
            distance=max(0.0, float(distances[i, j])),
            distance_before=None if earlier is None else float(earlier[i, j]),
            log_ratio=abs(math.log(float(norms[i]) / float(norms[j]))),
            identical=bool(torch.equal(after[i], after[j])),
            neighbours=max(neighbours[i], neighbours[j]),
        )


def _distances(rows: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """1 − cos of every row with every other, (k, n), and the norms (k,) of the former, in float64."""
    norms, lengths = (matrix.double().norm(dim=1).clamp(min=1e-300) for matrix in (rows, others))
    cosines = (rows.double() / norms[:, None]) @ (others.double() / lengths[:, None]).mT
    return 1 - cosines, norms
