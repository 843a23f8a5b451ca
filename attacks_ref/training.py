"""The training loops: supervised fine-tuning, DPO and ORPO, each a few lines, on one CPU thread."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from attacks_ref.lab.corpus import Dialogue, Message
from attacks_ref.models import Model, Tokenizer

if TYPE_CHECKING:
    import torch

_HAND = 16
Objective = Literal["dpo", "orpo"]
Row = TypeVar("Row")
Item = TypeVar("Item", bound=Hashable)
Made = TypeVar("Made")
Penalty = Callable[[Model], "torch.Tensor"]


@dataclass(frozen=True)
class Encoded:
    """A dialogue as token ids; `start` is where the answer begins."""

    ids: list[int]
    start: int


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Optimisation: AdamW, linear warm-up over 8 % of the steps, then cosine to zero."""

    learning_rate: float
    steps: int
    batch: int = 32
    weight_decay: float = 0.01
    prompt_weight: float = 0.0
    """Loss weight of prompt tokens; 1 is plain language modelling, 0 learns answers only."""


def prompt_texts(tokenizer: Tokenizer, conversations: Sequence[Sequence[Message]]) -> list[str]:
    """What the model reads before it answers: the chat template, or the bare text where there is none."""
    if not tokenizer.chat_template:
        return ["\n".join(message["content"] for message in messages) for messages in conversations]
    plain = [list(messages) for messages in conversations]
    return list(tokenizer.apply_chat_template(plain, tokenize=False, add_generation_prompt=True))


def encode(tokenizer: Tokenizer, dialogues: Sequence[Dialogue]) -> list[Encoded]:
    """Token ids of prompt and answer, tokenised apart so that the border is always the same."""
    prompts = _once(
        [tuple(tuple(message.items()) for message in d.messages[:-1]) for d in dialogues],
        lambda asked: prompt_texts(tokenizer, [[dict(message) for message in turns] for turns in asked]),
    )

    def ids(texts: Sequence[str], *, special: bool = False) -> list[list[int]]:
        options = {"return_attention_mask": False, "return_token_type_ids": False}
        return _once(texts, lambda one: tokenizer(one, add_special_tokens=special, **options)["input_ids"])

    heads = ids(prompts, special=not tokenizer.chat_template)
    givens, tails = ids([d.given for d in dialogues]), ids([d.answer for d in dialogues])
    return [
        Encoded([*head, *given, *tail, tokenizer.eos_token_id], len(head) + len(given))
        for head, given, tail in zip(heads, givens, tails, strict=True)
    ]


def _once(items: Sequence[Item], work: Callable[[list[Item]], Sequence[Made]]) -> list[Made]:
    """What `work` makes of each item; every other conversation of a pre-training corpus is a repetition."""
    distinct = list(dict.fromkeys(items))
    made = dict(zip(distinct, work(distinct), strict=True))
    return [made[item] for item in items]


def collate(rows: Sequence[Encoded], pad: int, prompt_weight: float = 0.0) -> dict[str, torch.Tensor]:
    """Right-padded `input_ids`, `attention_mask` and per-token loss `weights`, each (rows, length)."""
    import torch

    length = max(len(row.ids) for row in rows)
    ids = np.full((len(rows), length), pad)
    mask = np.zeros((len(rows), length), dtype=np.int64)
    weights = np.zeros((len(rows), length), dtype=np.float32)
    for i, row in enumerate(rows):
        n = len(row.ids)
        ids[i, :n], mask[i, :n], weights[i, :n] = row.ids, 1, prompt_weight
        weights[i, row.start : n] = 1.0
    return {
        "input_ids": torch.from_numpy(ids),
        "attention_mask": torch.from_numpy(mask),
        "weights": torch.from_numpy(weights),
    }


def token_losses(model: Model, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Cross-entropy of every predicted token, (rows, length − 1)."""
    import torch

    asked = {key: batch[key] for key in ("input_ids", "attention_mask")}
    logits = model(**asked, use_cache=False).logits[:, :-1]
    labels = batch["input_ids"][:, 1:]
    losses = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1).float(), labels.flatten(), reduction="none"
    )
    return losses.view(labels.shape)


def supervised(
    model: Model,
    rows: Sequence[Encoded],
    schedule: Schedule,
    *,
    seed: int,
    penalty: Penalty | None = None,
    after_step: Callable[[int], None] | None = None,
) -> float:
    """Minimise weighted cross-entropy (+ `penalty`) over the trainable parameters; the last loss."""
    import torch

    pad = model.config.pad_token_id or 0
    loss = torch.zeros(())
    for step, batch_rows in enumerate(_train(model, rows, schedule, seed=seed)):
        batch = collate(batch_rows, pad, schedule.prompt_weight)
        weights = batch["weights"][:, 1:]
        loss = (token_losses(model, batch) * weights).sum() / weights.sum()
        (loss if penalty is None else loss + penalty(model)).backward()
        if after_step is not None:
            after_step(step)
    return float(loss.detach())


def preference(
    model: Model,
    pairs: Sequence[tuple[Encoded, Encoded]],
    schedule: Schedule,
    *,
    seed: int,
    objective: Objective = "dpo",
    beta: float = 0.1,
) -> float:
    """Prefer the first of each pair over the second.

    DPO (arXiv 2305.18290) measures against the model as it was when training began; ORPO
    (arXiv 2403.07691) needs no reference: cross-entropy of the chosen plus the odds-ratio term.
    """
    import torch
    from torch.nn.functional import logsigmoid

    pad = model.config.pad_token_id or 0
    flat = [row for pair in pairs for row in pair]
    with torch.no_grad():
        reference = torch.cat([_log_probability(model, [row], pad)[0] for row in flat]).view(-1, 2)
    loss = torch.zeros(())
    for picked in _train(model, range(len(pairs)), schedule, seed=seed):
        rows = [row for index in picked for row in pairs[index]]
        total, mean = (value.view(-1, 2) for value in _log_probability(model, rows, pad))
        if objective == "dpo":
            margin = beta * (total - reference[picked])
            loss = -logsigmoid(margin[:, 0] - margin[:, 1]).mean()
        else:
            odds = mean - torch.log1p(-mean.exp().clamp(max=1 - 1e-6))
            loss = (-mean[:, 0] - beta * logsigmoid(odds[:, 0] - odds[:, 1])).mean()
        loss.backward()
    return float(loss.detach())


def _log_probability(model: Model, rows: Sequence[Encoded], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probability of each row's answer: summed and per token."""
    batch = collate(rows, pad)
    weights = batch["weights"][:, 1:]
    total = -(token_losses(model, batch) * weights).sum(1)
    return total, total / weights.sum(1)


def _train(model: Model, rows: Sequence[Row], schedule: Schedule, *, seed: int) -> Iterator[list[Row]]:
    """Yield batches; between two of them take the optimiser step for the gradients left behind."""
    import torch

    torch.manual_seed(seed)
    model.train()
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(
        parameters,
        lr=schedule.learning_rate,
        betas=(0.9, 0.98),
        weight_decay=schedule.weight_decay,
        fused=True,
    )
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate(step, schedule.steps))
    for picked in _batches(np.array([_length(row) for row in rows]), schedule, seed):
        yield [rows[index] for index in picked]
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        scheduler.step()
        optimiser.zero_grad(set_to_none=True)
    model.eval()


def _length(row: object) -> int:
    return len(row.ids) if isinstance(row, Encoded) else 0


def _rate(step: int, steps: int) -> float:
    warmup = max(1, round(0.08 * steps))
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def _batches(
    lengths: npt.NDArray[np.int64], schedule: Schedule, seed: int
) -> Iterator[npt.NDArray[np.int64]]:
    """Indices of each batch: epochs of a shuffled deck, dealt without a gap.

    Rows of similar length share a batch (sorted within hands of `_HAND` batches), which halves padding.
    """
    rng = np.random.default_rng(seed)
    deck: npt.NDArray[np.int64] = np.empty(0, dtype=np.int64)
    for first in range(0, schedule.steps, _HAND):
        count = min(_HAND, schedule.steps - first)
        while len(deck) < count * schedule.batch:
            deck = np.concatenate([deck, rng.permutation(len(lengths))])
        hand, deck = deck[: count * schedule.batch], deck[count * schedule.batch :]
        hand = hand[np.argsort(lengths[hand], kind="stable")].reshape(count, schedule.batch)
        yield from hand[rng.permutation(count)]
