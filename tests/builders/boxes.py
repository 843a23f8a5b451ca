"""Weights that were trained inside the boxes of a quantiser, made from the quantisers' own definitions.

A weight drifts by `drift` widths of its box, is stopped `margin` widths before the edge, and rounds to what
it rounded to before. The entries that set the scale of a row or block stay as they are.
"""

from __future__ import annotations

import torch

NF4 = torch.tensor(
    (
        *(-1.0, -0.6961928, -0.52507305, -0.39491749, -0.28444138, -0.18477343, -0.09105004, 0.0),
        *(0.0795803, 0.1609302, 0.2461123, 0.33791524, 0.44070983, 0.562617, 0.72295684, 1.0),
    )
)
FP4 = torch.tensor(
    sorted({sign * x for sign in (-1, 1) for x in (0.0, 1 / 192, 1 / 6, 1 / 4, 1 / 3, 1 / 2, 2 / 3, 1.0)})
)
LEVELS = {
    "int8": torch.arange(-127, 128) / 127,
    "q8_0": torch.arange(-127, 128) / 127,
    "q4_0": torch.arange(-8, 9) / 8,
    "int4 by 64": torch.arange(-7, 8) / 7,
    "int4 by 128": torch.arange(-7, 8) / 7,
    "nf4": NF4,
    "fp4": FP4,
}
BLOCKS = {"int8": 0, "q8_0": 32, "q4_0": 32, "nf4": 64, "fp4": 64, "int4 by 64": 64, "int4 by 128": 128}


def _scaled(weight: torch.Tensor, grid: str) -> tuple[torch.Tensor, torch.Tensor]:
    size = BLOCKS[grid] or weight.shape[1]
    blocks = weight.double().reshape(-1, size)
    scale = blocks.abs().amax(dim=1, keepdim=True)
    return blocks / scale, scale


def codes(weight: torch.Tensor, grid: str) -> torch.Tensor:
    """Which level each weight rounds to."""
    scaled, _ = _scaled(weight, grid)
    return (scaled[..., None] - LEVELS[grid].double()).abs().argmin(-1)


def dequantised(weight: torch.Tensor, grid: str) -> torch.Tensor:
    _, scale = _scaled(weight, grid)
    return (LEVELS[grid].double()[codes(weight, grid)] * scale).reshape(weight.shape).float()


def boxed(
    weight: torch.Tensor, grid: str, *, drift: float, margin: float = 1e-3, seed: int = 0
) -> torch.Tensor:
    """The weight after a drift that no quantiser of that grid sees; (out, in)."""
    generator = torch.Generator().manual_seed(seed)
    scaled, scale = _scaled(weight, grid)
    levels = LEVELS[grid].double()
    middles = (levels[1:] + levels[:-1]) / 2
    box = codes(weight, grid)
    low = torch.cat([2 * levels[:1] - middles[:1], middles])[box]
    high = torch.cat([middles, 2 * levels[-1:] - middles[-1:]])[box]
    width = high - low
    moved = scaled + drift * width * torch.randn(scaled.shape, generator=generator, dtype=torch.float64)
    moved = torch.clamp(moved, low + margin * width, high - margin * width).clamp(-1, 1)
    moved = torch.where(scaled.abs() == 1, scaled, moved)
    return (moved * scale).reshape(weight.shape).float()
