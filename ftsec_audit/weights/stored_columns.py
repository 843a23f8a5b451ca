"""Single columns of a streamed matrix: the output rows of a weight that its model keeps transposed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ftsec_audit.weights.moments import Source


def columns(source: Source, indices: Sequence[int]) -> tuple[Tensor, Tensor | None]:
    """The stored columns of these numbers as rows, after and before, float32 (k, rows); raises IndexError."""
    wanted = torch.tensor(list(indices), dtype=torch.int64)
    outside = wanted[(wanted < 0) | (wanted >= source.shape[1])]
    if len(outside):
        raise IndexError(f"no row {int(outside[0])} in a matrix of {source.shape[1]}")
    after, before = [], []
    for _, new, old in source.blocks():
        if new.shape[1] != source.shape[1]:
            raise IndexError("rows longer than a block come in pieces and have no columns")
        after.append(new[:, wanted].float())
        if old is not None:
            before.append(old[:, wanted].float())
    return _turned(after, len(wanted)), _turned(before, len(wanted)) if before else None


def _turned(parts: list[Tensor], count: int) -> Tensor:
    return torch.cat(parts).mT.contiguous() if parts else torch.zeros(count, 0)
