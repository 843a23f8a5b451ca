"""Checkpoints whose projections lie side by side in one tensor, as other programs save the same model."""

from __future__ import annotations

import torch
from builders.adapters import Tensors

QKV = ("q_proj", "k_proj", "v_proj")


def fuse(
    tensors: Tensors,
    names: tuple[str, ...] = QKV,
    into: str = "qkv_proj",
    *,
    groups: int = 1,
    turned: bool = False,
) -> Tensors:
    """Put the outputs of `names` into one tensor: one after the other, or by turns for every group of heads.

    `turned`: kept as (in, out).
    """
    fused: Tensors = {}
    for name, tensor in tensors.items():
        module, leaf = name.rsplit(".", 1)
        path, _, role = module.rpartition(".")
        if role not in names:
            fused[name] = tensor
        elif role == names[0]:
            together = [tensors[f"{path}.{part}.{leaf}"] for part in names]
            by_group = [part.unflatten(0, (groups, -1)) for part in together]
            whole = torch.cat(by_group, dim=1).flatten(0, 1)
            fused[f"{path}.{into}.{leaf}"] = whole.mT if turned and whole.dim() > 1 else whole
    return fused


def fuse_all(tensors: Tensors) -> Tensors:
    """The layout of Phi-3: attention and MLP inputs fused."""
    return fuse(fuse(tensors), ("gate_proj", "up_proj"), "gate_up_proj")
