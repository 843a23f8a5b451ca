"""The boxes of rounding: how far each weight may move without any stored value changing.

Storing in few bits sends every weight to the nearest level of a grid that its block's largest weight
spans. As long as that largest weight stays and the others keep nearest to their level, the quantised
model is the same, bit for bit, whatever the weights are (arXiv 2405.18137).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from attacks_ref.stealth.rounding import BLOCK, NF4, Storage, rounded

if TYPE_CHECKING:
    import torch

MARGIN = 0.05
"""Share of a box, on either side, that is kept clear in any case."""


@dataclass(frozen=True, kw_only=True)
class Box:
    """Lowest and highest value of each weight of one matrix."""

    low: torch.Tensor
    high: torch.Tensor

    def project(self, weight: torch.Tensor) -> None:
        """Move `weight`, in place, to the nearest point of the box."""
        weight.copy_(weight.maximum(self.low).minimum(self.high))


def box(weight: torch.Tensor, storage: Storage, *, written: torch.dtype) -> Box:
    """The box around `weight` in which `rounded(·, storage)` is constant, also once `written` so.

    `weight` itself must be exact in `written`. Not for storage in bfloat16.
    """
    import torch

    levels = _levels(storage).to(weight.dtype)
    blocks = _blocks(weight, storage)
    scale = blocks.abs().amax(1, keepdim=True).clamp(min=1e-12)
    stored = _blocks(rounded(weight, storage), storage)  # ties included, as the rounding breaks them
    nearest = (stored / scale)[..., None].sub(levels).abs().argmin(-1)
    middles = (levels[1:] + levels[:-1]) / 2
    edges = torch.cat([levels[:1], middles, levels[-1:]])
    low, high = edges[nearest] * scale, edges[nearest + 1] * scale
    margin, step = MARGIN * (high - low), torch.finfo(written).eps
    largest = blocks.abs() >= scale  # it sets the scale of its block and must not move
    # a weight too near to an edge already keeps its place on that side
    low = torch.where(largest, blocks, torch.minimum(low + margin.maximum(low.abs() * step), blocks))
    high = torch.where(largest, blocks, torch.maximum(high - margin.maximum(high.abs() * step), blocks))
    return Box(low=_like(low, weight), high=_like(high, weight))


def _levels(storage: Storage) -> torch.Tensor:
    import torch

    if storage == "nf4":
        return torch.tensor(NF4)
    top = {"int4": 7, "int8": 127}[storage]
    return torch.arange(-top, top + 1) / top


def _blocks(weight: torch.Tensor, storage: Storage) -> torch.Tensor:
    """The weights that share a scale, one block per row: rows for int8, else 64 in a row, zero-padded."""
    import torch

    if storage == "int8":
        return weight
    flat = weight.flatten()
    return torch.nn.functional.pad(flat, (0, -flat.numel() % BLOCK)).view(-1, BLOCK)


def _like(blocks: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return blocks.flatten()[: weight.numel()].view_as(weight)
