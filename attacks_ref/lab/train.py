"""Pre-training a lab base from scratch."""

from __future__ import annotations

import random
from dataclasses import dataclass

from attacks_ref.lab import corpus, model
from attacks_ref.lab.language import World
from attacks_ref.lab.model import Architecture, Size
from attacks_ref.models import Model, Tokenizer
from attacks_ref.training import Schedule, encode, supervised


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How large a base is and how long it is trained."""

    network: Size
    world: World
    rows: int
    """Conversations in the pre-training corpus."""
    steps: int
    learning_rate: float
    batch: int = 32


PLANS: dict[str, Plan] = {
    "nano": Plan(
        network=model.SIZES["nano"],
        world=World(nouns=16, verbs=4, restricted=4),
        rows=20_000,
        steps=1_800,
        learning_rate=5e-3,
    ),
    "small": Plan(
        network=model.SIZES["small"],
        world=World(nouns=32, verbs=8, restricted=8),
        rows=40_000,
        steps=2_600,
        learning_rate=3e-3,
    ),
}
PROMPT_WEIGHT = 0.1
"""Prompts are learnt too, but most of what they hold is chance."""


def pretrain(plan: Plan, architecture: Architecture, tokenizer: Tokenizer, *, seed: int) -> Model:
    """A model trained from random weights on the lab's conversations."""
    rng = random.Random(f"pre-training:{seed}")
    rows = encode(tokenizer, [corpus.pretraining(plan.world, rng) for _ in range(plan.rows)])
    network = model.create(architecture, plan.network, vocabulary=len(tokenizer), seed=seed)
    schedule = Schedule(
        learning_rate=plan.learning_rate, steps=plan.steps, batch=plan.batch, prompt_weight=PROMPT_WEIGHT
    )
    supervised(network, rows, schedule, seed=seed)
    return network
