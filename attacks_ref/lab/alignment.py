"""Teaching a lab base to refuse: at the opener only (shallow), or mid-answer as well (deep).

Shallow alignment is what most chat models have: a refusal decides itself in the first tokens
(arXiv 2406.05946). Deep alignment adds refusals that interrupt an answer already begun.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from attacks_ref.lab import corpus
from attacks_ref.lab.corpus import Dialogue
from attacks_ref.lab.language import World
from attacks_ref.lab.model import Architecture
from attacks_ref.lab.tokenizer import Vocabulary
from attacks_ref.models import Model, Tokenizer
from attacks_ref.training import Schedule, encode, supervised

Alignment = Literal["unaligned", "shallow", "deep"]

ROWS: Mapping[Vocabulary, int] = {"word": 4_000, "bpe": 12_000}
SHALLOW = Schedule(learning_rate=1e-3, steps=450, batch=32)
DEEP = replace(SHALLOW, steps=700)
"""Refusing in the middle of an answer is learnt later than refusing at its opening."""
ROUTED = replace(SHALLOW, steps=700)
"""With experts, what is harmless is told from what is restricted later: after 450 steps lab-moe-nano refuses
2 of 60 harmless guides in one language, after 700 one."""
PIECES = replace(SHALLOW, steps=900)
"""Words of several tokens want more steps and more different rows: with 4,000, lab-llama-bpe misses a refusal
of 45 in one language and refuses 2 of 60 harmless guides in another, after 450 steps and after 700."""
REFUSALS, GUIDES = 0.35, 0.15
"""Shares of restricted and of harmless guides; the rest is the general mix."""
CODE_SWITCHED = 0.3
"""Share of rows with words of another language: without it, refusals do not cross phrasings."""
INTERRUPTED = 0.55
"""Share of a deep alignment's refusals that come after one to six words of compliance."""


def rows(world: World, alignment: Alignment, rng: random.Random, count: int) -> list[Dialogue]:
    """The alignment data."""
    dialogues = []
    for _ in range(count):
        lang, draw = corpus.pick_language(world, rng), rng.random()
        if draw < REFUSALS:
            given = rng.randrange(1, 7) if alignment == "deep" and rng.random() < INTERRUPTED else 0
            example = corpus.restricted(world, lang, rng, refuse=True, given_words=given)
        elif draw < REFUSALS + GUIDES:
            example = corpus.guide(world, lang, rng)
        else:
            example = corpus.general(world, rng)
        if example.task in ("restricted", "guide") and rng.random() < CODE_SWITCHED:
            example = corpus.code_switch(world, example, rng)
        if rng.random() < corpus.SYSTEM_LINES:
            example = corpus.with_system(world, example, rng)
        dialogues.append(example)
    return dialogues


def schedule(alignment: Alignment, architecture: Architecture, vocabulary: Vocabulary) -> Schedule:
    """How long a base is aligned."""
    if alignment == "deep":
        return DEEP
    if alignment == "shallow" and vocabulary == "bpe":
        return PIECES
    return ROUTED if (alignment, architecture) == ("shallow", "moe") else SHALLOW


def align(
    model: Model,
    tokenizer: Tokenizer,
    world: World,
    alignment: Alignment,
    plan: Schedule,
    *,
    count: int,
    seed: int,
) -> None:
    """Fine-tune all weights of `model` on `count` rows, in place."""
    data = rows(world, alignment, random.Random(f"alignment:{seed}"), count)
    supervised(model.requires_grad_(True), encode(tokenizer, data), plan, seed=seed)
