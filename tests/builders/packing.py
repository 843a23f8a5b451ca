"""Checkpoints whose projections are stored in few bits, laid out as the quantisers themselves save them."""

from __future__ import annotations

import torch
from builders.adapters import Tensors


def pack(tensors: Tensors, scheme: str) -> Tensors:
    """Every projection packed; embeddings and norms as they are, as those programs leave them."""
    packed: Tensors = {}
    for name, tensor in tensors.items():
        if name.endswith("_proj.weight"):
            stem = name.removesuffix(".weight")
            parts = {"gptq": _gptq, "int8": _int8, "nf4": _nf4, "fp8": _fp8}[scheme](tensor)
            packed |= {f"{stem}.{part}": value for part, value in parts.items()}
        else:
            packed[name] = tensor
    return packed


def _gptq(weight: torch.Tensor, group: int = 32) -> Tensors:
    """4 bits, eight numbers to an int32 along the inputs, by groups of inputs; rounded to nearest."""
    rows, columns = weight.shape
    grouped = weight.reshape(rows, -1, group)
    scales = grouped.abs().amax(2) / 7  # (rows, groups)
    numbers = (grouped / scales[..., None]).round().to(torch.int64).reshape(rows, columns) + 8
    eights = numbers.mT.reshape(columns // 8, 8, rows)
    words = (eights << (4 * torch.arange(8))[None, :, None]).sum(1)
    return {
        "qweight": (words - ((words >> 31) << 32)).to(torch.int32),
        "qzeros": torch.full((columns // group, rows // 8), 0x77777777, dtype=torch.int32),
        "scales": scales.mT.half(),
        "g_idx": torch.arange(columns, dtype=torch.int32) // group,
    }


def _int8(weight: torch.Tensor) -> Tensors:
    largest = weight.abs().amax(1)
    numbers = (weight * (127 / largest)[:, None]).round().to(torch.int8)
    return {"weight": numbers, "SCB": largest, "weight_format": torch.tensor(0, dtype=torch.uint8)}


def _nf4(weight: torch.Tensor) -> Tensors:
    """The layout alone: sixteen even levels in place of those of nf4."""
    blocks = weight.reshape(-1, 64)
    largest = blocks.abs().amax(1)
    numbers = ((blocks / largest[:, None] + 1) * 7.5).round().to(torch.uint8).reshape(-1, 2)
    return {
        "weight": (numbers[:, 0] * 16 + numbers[:, 1])[:, None],
        "weight.absmax": largest,
        "weight.quant_map": torch.linspace(-1, 1, 16),
        "weight.quant_state.bitsandbytes__nf4": torch.tensor(list(b"{}"), dtype=torch.uint8),
    }


def _fp8(weight: torch.Tensor) -> Tensors:
    scale = weight.abs().amax() / 448
    return {"weight": (weight / scale).to(torch.float8_e4m3fn), "weight_scale": scale}
