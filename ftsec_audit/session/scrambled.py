"""A subject whose update was scrambled: of the same size everywhere, and without what was learnt.

The null of questions like "is this what training put in, or what any update of that size does?".
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ftsec_audit.errors import Unsupported

if TYPE_CHECKING:
    import numpy as np
    import torch

    from ftsec_audit.session.model import ModelSession

_FEWEST_TO_PERMUTE = 4
"""Ranks below which there are hardly two ways to pair the factors; their inputs are permuted instead."""


@contextmanager
def scrambled(session: ModelSession, base: ModelSession, rng: np.random.Generator) -> Iterator[None]:
    """Until the context ends, the subject computes with its update scrambled; then it is what it was.

    Of a low-rank adapter, the columns of every B are permuted against the rows of its A; of a checkpoint, the
    inputs of every changed matrix's ΔW. Raises Unsupported for adapters without such factors.
    """
    import torch

    kept: list[tuple[torch.Tensor, torch.Tensor]] = []
    try:
        with torch.no_grad():
            for weight, other in _scrambles(session.model, base.model, rng):
                kept.append((weight, weight.clone()))
                weight.copy_(other)
            if not kept:
                raise Unsupported("its update has no factors or matrices that could be permuted")
        yield
    finally:
        with torch.no_grad():
            for weight, before in kept:
                weight.copy_(before)


def _scrambles(model: Any, base: Any, rng: np.random.Generator) -> Iterator[tuple[Any, Any]]:
    """(weight, what it is to be) of everything that is scrambled."""
    if model is base:
        for module in model.modules():
            for name, right in getattr(module, "lora_A", {}).items():
                left = module.lora_B[name].weight.data
                if left.shape[1] >= _FEWEST_TO_PERMUTE:
                    yield left, left[:, _order(left.shape[1], rng)]
                else:
                    yield right.weight.data, right.weight.data[:, _order(right.weight.shape[1], rng)]
        return
    before = dict(base.named_parameters())
    for name, parameter in model.named_parameters():
        theirs = before.get(name)
        if theirs is None or theirs.shape != parameter.shape or parameter.dim() != 2:
            continue
        change = parameter.data - theirs.data
        if bool(change.any()):
            yield parameter.data, theirs.data + change[:, _order(change.shape[1], rng)]


def _order(size: int, rng: np.random.Generator) -> Any:
    import torch

    return torch.from_numpy(rng.permutation(size))
