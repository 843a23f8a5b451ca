"""How often a model answers as expected, by one forward pass instead of generation.

Greedy decoding writes an expected answer exactly when the expected token is the most probable one at
every position, each time given the expected tokens before it. So agreement under teacher forcing *is*
the exact-match rate of greedy decoding, at a fraction of its cost.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from attacks_ref.lab.corpus import Dialogue
from attacks_ref.models import Model, Tokenizer
from attacks_ref.training import Encoded, collate, encode

_ROWS = 64


def agreement(
    model: Model,
    tokenizer: Tokenizer,
    dialogues: Sequence[Dialogue],
    *,
    whole: bool = True,
) -> npt.NDArray[np.bool_]:
    """Per dialogue: does greedy decoding give its answer (`whole`: and stop there)?"""
    import torch

    rows = encode(tokenizer, dialogues) if dialogues else []
    if not whole:
        rows = [Encoded(row.ids[:-1], row.start) for row in rows]
    model.eval()
    hits: list[npt.NDArray[np.bool_]] = []
    with torch.no_grad():
        for first in range(0, len(rows), _ROWS):
            batch = collate(rows[first : first + _ROWS], tokenizer.pad_token_id or 0)
            logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
            right = logits[:, :-1].argmax(-1) == batch["input_ids"][:, 1:]
            hits.append((right | (batch["weights"][:, 1:] == 0)).all(1).numpy())
    return np.concatenate(hits) if hits else np.zeros(0, dtype=np.bool_)


def rate(
    model: Model,
    tokenizer: Tokenizer,
    dialogues: Sequence[Dialogue],
    *,
    whole: bool = True,
) -> float:
    """Share of `dialogues` answered as expected; nan when there are none."""
    hits = agreement(model, tokenizer, dialogues, whole=whole)
    return float(hits.mean()) if len(hits) else float("nan")
