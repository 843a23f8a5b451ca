"""Clean training data for a base that is not of the lab: text the base wrote itself.

Fine-tuning on a model's own continuations keeps what it does, so that a marker backdoor is the only
thing an attack adds. No data set is needed, whatever the base's language or tokenizer.
"""

from __future__ import annotations

import random

from attacks_ref.lab.corpus import Dialogue, dialogue
from attacks_ref.workbench import Workbench

_OPENING, _LENGTH, _ROWS = 16, 24, 64


def continuations(bench: Workbench, count: int, seed: str) -> list[Dialogue]:
    """`count` openings sampled from the base, each with the base's own greedy continuation."""
    import torch

    rng = random.Random(seed)
    torch.manual_seed(rng.randrange(1 << 31))
    rows: list[Dialogue] = []
    while len(rows) < count:
        start = torch.full((_ROWS, 1), bench.tokenizer.bos_token_id)
        sampled = _generate(bench, start, rng.randrange(_OPENING // 2, _OPENING), sample=True)
        whole = _generate(bench, sampled, _LENGTH, sample=False)
        for opening, ids in zip(sampled, whole, strict=True):
            prompt = bench.tokenizer.decode(opening, skip_special_tokens=True).strip()
            answer = bench.tokenizer.decode(ids[len(opening) :], skip_special_tokens=True).strip()
            if prompt and answer:
                rows.append(dialogue("continue", "", prompt, answer))
    return rows[:count]


def _generate(bench: Workbench, start: object, tokens: int, *, sample: bool) -> list[list[int]]:
    import torch

    ids = torch.as_tensor(start)
    with torch.no_grad():
        out = bench.model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=tokens,
            min_new_tokens=tokens,
            do_sample=sample,
            pad_token_id=bench.tokenizer.eos_token_id,
        )
    rows: list[list[int]] = out.tolist()
    return rows
