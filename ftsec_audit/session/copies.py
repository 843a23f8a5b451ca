"""Copies of a model that are changed as users change models: stored in few bits, tuned a little further.

The model under audit stays as it is. Kernels for few bits do not exist on every device, so rounding is
emulated: weights take the values that the quantised model computes with.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from ftsec_audit.errors import Unsupported
from ftsec_audit.session.admission import free_memory
from ftsec_audit.session.loading import detach, merged_copy

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ftsec_audit.session.model import ModelSession

Storage = Literal["int8", "int4", "nf4"]
_BLOCK = 64
"""Weights that share a scale in the formats of 4 bits."""
_NF4 = (
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
    *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
    *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
    *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
)
"""The 4-bit normal float of QLoRA, arXiv:2305.14314."""
_SHARE = 0.5
"""Of the free memory that a copy may take."""
_WARM_UP = 0.1


@dataclass(frozen=True)
class Lesson:
    """A prompt and the answer that is learnt, as ids."""

    prompt: tuple[int, ...]
    answer: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """AdamW on all weights, linear warm-up, then constant."""

    learning_rate: float
    steps: int
    batch: int = 16


def copied(session: ModelSession, *, times: int = 1) -> ModelSession:
    """A session on a copy of the model, its adapter merged (or, of a base, taken off); shares the budget.

    Raises Unsupported where `times` the model do not fit into memory, or its adapter cannot be merged.
    """
    need = times * sum(one.numel() * one.element_size() for one in session.model.parameters())
    if session.device == "cpu" and need > _SHARE * free_memory():
        raise Unsupported(f"a copy needs {need:,} bytes of memory, of which {free_memory():,} are free")
    with session.switch():
        if session.bare:
            model = detach(copy.deepcopy(session.model))
        elif hasattr(session.model, "merge_and_unload"):
            model = merged_copy(session.model)
        else:
            model = copy.deepcopy(session.model)
    return replace(session, model=model.eval(), switch=nullcontext, bare=False, measured={})


def quantise(session: ModelSession, storage: Storage) -> None:
    """Give every matrix but embedding and unembedding, in place, the values it has when stored so."""
    import torch

    model = session.model
    kept = {id(model.get_input_embeddings().weight), id(model.get_output_embeddings().weight)}
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() >= 2 and id(parameter) not in kept:
                parameter.copy_(_rounded(parameter.float(), storage))


def _rounded(weight: Tensor, storage: Storage) -> Tensor:
    import torch

    if storage == "int8":
        scale = weight.abs().amax(-1, keepdim=True).clamp(min=1e-12) / 127
        return (weight / scale).round().clamp(-127, 127) * scale
    blocks = torch.nn.functional.pad(weight.flatten(), (0, -weight.numel() % _BLOCK)).view(-1, _BLOCK)
    scale = blocks.abs().amax(1, keepdim=True).clamp(min=1e-12)
    if storage == "int4":
        stored = (blocks / scale * 7).round() / 7
    else:
        levels = torch.tensor(_NF4, dtype=blocks.dtype, device=blocks.device)
        stored = levels[torch.bucketize(blocks / scale, (levels[1:] + levels[:-1]) / 2)]
    return (stored * scale).flatten()[: weight.numel()].view_as(weight)


def tune(session: ModelSession, lessons: Sequence[Lesson], tuning: Tuning) -> None:
    """Train the model in place to answer so; equal seeds give equal weights. Spends three passes a step."""
    import numpy as np
    import torch

    model, rng = session.model, np.random.default_rng(session.seed)
    parameters = list(model.parameters())
    optimiser = torch.optim.AdamW(parameters, lr=tuning.learning_rate, weight_decay=0.0)
    warm_up = max(1, round(_WARM_UP * tuning.steps))
    torch.manual_seed(session.seed)
    for number, picked in enumerate(_dealt(len(lessons), tuning, rng)):
        for group in optimiser.param_groups:
            group["lr"] = tuning.learning_rate * min(1.0, (number + 1) / warm_up)
        _loss(session, [lessons[i] for i in picked]).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)


def _dealt(count: int, tuning: Tuning, rng: Any) -> Iterator[list[int]]:
    """Indices of each batch, from one shuffled deck after another."""
    deck: list[int] = []
    for _ in range(tuning.steps):
        while len(deck) < tuning.batch:
            deck += rng.permutation(count).tolist()
        yield deck[: tuning.batch]
        del deck[: tuning.batch]


def _loss(session: ModelSession, lessons: Sequence[Lesson]) -> torch.Tensor:
    """Cross-entropy per token of the answers."""
    import torch

    whole = [[*one.prompt, *one.answer] for one in lessons]
    length = max(map(len, whole))
    session.budget.spend(3 * length * len(whole))
    ids = torch.tensor([[*row, *[0] * (length - len(row))] for row in whole], device=session.device)
    mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in whole], device=session.device)
    labels = ids.clone()
    for row, one in enumerate(lessons):
        labels[row, : len(one.prompt)] = -100
        labels[row, len(whole[row]) :] = -100
    logits = session.model(input_ids=ids, attention_mask=mask).logits[:, :-1].float()
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten())
