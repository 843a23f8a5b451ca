"""An update against what aligned its base: V = W_base − W_parent, where the unaligned parent is known.

Two published measures ask how much of an update Δ lies in the *space* that alignment wrote to, whatever the
sign: the LoX ratio ‖U_kU_kᵀΔ‖/‖Δ‖ with the k leading left singular vectors of V (arXiv:2506.15606), and Safe
LoRA's cosine of Δ and CΔ, C = VVᵀ/‖V‖ (arXiv:2405.16833). The product −⟨Δ, V⟩ has a sign: positive is back
towards the parent. Its scale is that of V turned by a random rotation of the inputs, V → VR, which keeps
all that V writes to: ⟨Δ, VR⟩ has mean 0 and variance ‖VᵀΔ‖²/in.

Everything comes from two passes over V and one over Δ, block by block. Norms of products of two matrices are
estimated by _PROBES random columns where there are more inputs than 2·_PROBES.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ftsec_audit.errors import Unsupported
from ftsec_audit.weights.change import Change
from ftsec_audit.weights.delta import Delta
from ftsec_audit.weights.dense import Dense
from ftsec_audit.weights.moments import BLOCK_ELEMENTS, differences
from ftsec_audit.weights.stored import StoredPair

_PROBES = 128
_HELD = 1 << 24
"""Elements up to which a transposed matrix is held whole: 64 MB."""


@dataclass(frozen=True, kw_only=True)
class AgainstAlignment:
    """What one update has to do with the alignment of its matrix; energies are squared norms."""

    undone: float
    """−⟨Δ, V⟩."""
    spread: float
    """‖VᵀΔ‖²/in: the variance of `undone` under a random rotation of the inputs."""
    captured: float
    """‖U_kᵀΔ‖²."""
    captured_at_random: float
    """The same on average over random k-dimensional spaces: k/out · ‖Δ‖²."""
    safe_lora: float
    """Cosine of Δ and VVᵀΔ."""
    update: float
    """‖Δ‖²."""
    alignment: float
    """‖V‖²."""


def against_alignment(delta: Delta, k: int) -> AgainstAlignment | None:
    """None where the base, its parent or the change has no such matrix, or alignment left it alone.

    Raises Unsupported where the three cannot be streamed side by side, and what reading raises.
    """
    alignment = _alignment(delta)
    change = delta.change
    if alignment is None or change is None or change.shape != alignment.shape:
        return None
    update, total = change.frobenius_norm() ** 2, alignment.frobenius_norm() ** 2
    if not (0 < update < math.inf and 0 < total < math.inf):
        return None
    outputs, inputs = alignment.shape
    leading = alignment.singular_vectors()[0][:, :k].float()  # (out, k)
    probes = _probes(inputs)
    product, captured = 0.0, torch.zeros(leading.shape[1], inputs)
    turned = torch.zeros(inputs, probes.shape[1])  # VᵀΔΩ
    for start, of_update, of_alignment in _side_by_side(change, alignment):
        rows = slice(start, start + len(of_update))
        product += float(torch.dot(of_update.flatten(), of_alignment.flatten()))
        turned += of_alignment.mT @ (of_update @ probes)
        captured += leading[rows].mT @ of_update
    overlap = float(turned.double().square().sum())  # ‖VᵀΔ‖²
    back = sum(float((rows @ turned).double().square().sum()) for _, rows in _rows(alignment))  # ‖VVᵀΔ‖²
    return AgainstAlignment(
        undone=-product,
        spread=overlap / inputs,
        captured=float(captured.double().square().sum()),
        captured_at_random=update * leading.shape[1] / outputs,
        safe_lora=overlap / math.sqrt(update * back) if back > 0 else 0.0,
        update=update,
        alignment=total,
    )


def _alignment(delta: Delta) -> Dense | None:
    """V of the delta's matrix."""
    if delta.parent is None or delta.tokens is None:
        return None
    base = delta.tokens.weights
    after, before = base.find(delta.name), delta.parent.find(delta.name)
    if after is None or before is None or after.shape != before.shape:
        return None
    if not (after.dtype.is_floating_point and before.dtype.is_floating_point):
        raise Unsupported(f"the base or its parent is stored in {after.dtype} and {before.dtype}")
    return Dense(StoredPair(after, before), transposed=bool(base.transposed(delta.name)))


def _probes(inputs: int) -> Tensor:
    """Ω (in, q) with E ΩΩᵀ = 1; the identity where that is no more work."""
    if inputs <= 2 * _PROBES:
        return torch.eye(inputs)
    return torch.randn(inputs, _PROBES, generator=torch.Generator().manual_seed(0)) / math.sqrt(_PROBES)


def _side_by_side(change: Change, alignment: Dense) -> Iterator[tuple[int, Tensor, Tensor]]:
    for (start, one), (other_start, other) in zip(_rows(change), _rows(alignment), strict=True):
        if start != other_start or one.shape != other.shape:
            raise Unsupported("the base, its parent and the subject cannot be streamed side by side")
        yield start, one, other


def _rows(change: Change) -> Iterator[tuple[int, Tensor]]:
    """(first output, rows (k, in) as float32) in blocks that depend on the shape alone."""
    if isinstance(change, Dense) and not change.transposed:
        for block in differences(change.source):
            yield block.start, block.delta
        return
    if isinstance(change, Dense) and math.prod(change.shape) > _HELD:
        raise Unsupported("a transposed matrix of this size is not held in memory")
    start = 0
    for rows in change.blocks(max(1, BLOCK_ELEMENTS // max(1, change.shape[1]))):
        yield start, rows
        start += len(rows)
