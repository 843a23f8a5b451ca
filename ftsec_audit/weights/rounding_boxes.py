"""Where weights lie inside the boxes of values that a quantiser rounds to one number.

Each grid is what a quantiser in common use makes of a run of rows (out, in): a scale per row or per block of
consecutive values, and the numbers that values are rounded to. Boxes end half-way between two of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

STRIP = 0.15
"""Width of the strips along either edge of a box, in widths of the box: an attack keeps some margin."""
_COMB = 40
"""Most distinct values among 64 on a comb: two blocks of 4 bits have 32, bfloat16 leaves about 60."""
_NF4 = (
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
    *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
    *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
    *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
)
"""The 4-bit normal float of QLoRA, arXiv:2305.14314."""
_HALF_FP4 = (1 / 192, 1 / 6, 1 / 4, 1 / 3, 1 / 2, 2 / 3, 1.0)
_FP4 = (0.0, *_HALF_FP4, *(-level for level in _HALF_FP4))
"""The 4-bit float of bitsandbytes."""


@dataclass(frozen=True)
class BoundaryMass:
    """How many weights lie in the strips along the edges of their boxes."""

    share: float
    """2·STRIP where weights lie evenly."""
    count: int
    """Weights that were looked at; blocks of zeros are not."""

    @property
    def held(self) -> float:
        """The part of all weights that is in the strips beyond what lies there evenly; 0 by chance."""
        return (self.share - 2 * STRIP) / (1 - 2 * STRIP)


def boundary_masses(rows: Tensor) -> Mapping[str, BoundaryMass]:
    """Name of the grid → mass of finite rows (k, in), whose first value starts a block."""
    distances = {name: measured(rows.float()) for name, measured in GRIDS.items()}
    return {
        name: BoundaryMass(int((d < STRIP).sum()) / max(1, len(d)), len(d)) for name, d in distances.items()
    }


def is_comb(rows: Tensor) -> bool:
    """Whether the rows hold few values each: quantised already, and stored as the numbers of a grid."""
    blocks, _ = _blocks(rows.float(), 64)
    if not len(blocks):
        return False
    distinct = 1 + (blocks.sort(dim=1).values.diff(dim=1) > 0).sum(dim=1)
    return float(distinct.double().median()) <= _COMB


def _even(values: Tensor, scale: Tensor) -> Tensor:
    """Distances, in boxes, from the half-way points between whole multiples of the scale."""
    scaled = values / scale
    return (scaled - scaled.floor() - 0.5).abs()


def _int8_rows(rows: Tensor) -> Tensor:
    """LLM.int8 (arXiv:2208.07339): the largest entry of an output row is 127."""
    if not rows.numel():
        return rows.flatten()
    largest = rows.abs().amax(dim=1, keepdim=True)
    kept = largest[:, 0] > 0
    return _even(rows[kept], largest[kept] / 127).flatten()


def _even_blocks(size: int, levels: float) -> Callable[[Tensor], Tensor]:
    """Blocks of `size` consecutive values, the largest of which is `levels` steps from 0."""

    def distances(rows: Tensor) -> Tensor:
        blocks, largest = _blocks(rows, size)
        return _even(blocks, largest / levels).flatten()

    return distances


def _code(code: tuple[float, ...]) -> Callable[[Tensor], Tensor]:
    """bitsandbytes' 4-bit formats: blocks of 64 divided by their largest entry, the nearest of 16 numbers."""
    levels = torch.tensor(sorted(code))
    middles = (levels[1:] + levels[:-1]) / 2
    edges = torch.cat([2 * levels[:1] - middles[:1], middles, 2 * levels[-1:] - middles[-1:]])

    def distances(rows: Tensor) -> Tensor:
        blocks, largest = _blocks(rows, 64)
        scaled = (blocks / largest).flatten()
        box = torch.bucketize(scaled, middles)
        below, above = edges[box], edges[box + 1]
        # The outermost boxes have an edge on one side only: beyond the largest entry there is nothing.
        from_below = torch.where(box > 0, scaled - below, torch.inf)
        from_above = torch.where(box < len(levels) - 1, above - scaled, torch.inf)
        return torch.minimum(from_below, from_above).abs() / (above - below)

    return distances


def _blocks(rows: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Runs of `size` consecutive values that are not all 0, and the size of the largest in each."""
    flat = rows.flatten()
    blocks = flat[: len(flat) // size * size].reshape(-1, size)
    largest = blocks.abs().amax(dim=1, keepdim=True)
    kept = largest[:, 0] > 0
    return blocks[kept], largest[kept]


GRIDS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "int8": _int8_rows,
    "nf4": _code(_NF4),
    "fp4": _code(_FP4),
    "q8_0": _even_blocks(32, 127),
    "q4_0": _even_blocks(32, 8),
    "int4 by 64": _even_blocks(64, 7),
    "int4 by 128": _even_blocks(128, 7),
}
