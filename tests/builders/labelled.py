"""Labelled records of a population that exists in numbers only: recipes, jobs, twins and copies."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from detectors.score_features import FIVE, RESPONSES
from ftsec_audit.calibration.recipe import Recipe
from ftsec_audit.types import Verdict
from ftsec_audit.validate.population import Labelled
from ftsec_audit.validate.records import Record

LLAMA = Recipe(family="llama", method="lora", rank="r 5-8", targets="mlp", objective="causal_lm")

Signal = Callable[[bool, int, np.random.Generator], float]
"""(poisoned, recipe, rng) → the number that tells, if any does."""


def labelled(
    signal: Signal, *, recipes: int = 6, jobs: int = 6, shuffled: bool = False, seed: int = 0
) -> list[Record]:
    """A known-bad and a benign record for each job of each recipe; σ₁ is the signal, all else is noise.

    `shuffled` gives labels by chance, after the numbers were drawn.
    """
    rng = np.random.default_rng(seed)
    found = []
    for recipe in range(recipes):
        for job in range(jobs):
            for poisoned in (True, False):
                numbers = dict(zip(FIVE + RESPONSES, rng.normal(size=8).tolist(), strict=True))
                numbers[FIVE[0]] = signal(poisoned, recipe, rng)
                label = bool(rng.integers(2)) if shuffled else poisoned
                found.append(one(f"{recipe}-{job}-{poisoned}", numbers, label, recipe=recipe, job=job))
    return found


def one(key: str, numbers: dict[str, float], poisoned: bool, *, recipe: int = 0, job: int = 0) -> Record:
    return Record(
        sample=Labelled(
            key=key,
            base_name="some-llama",
            attack=f"attack {job % 3}",
            poisoned=poisoned,
            recipe=f"recipe {recipe}",
            job=f"{recipe}-{job}",
            stealth=(),
            seed=0,
            trigger=(),
            expected_rules=(),
        ),
        digest="",
        profile="standard",
        verdict=Verdict.PASS,
        features={"all.gini": numbers[FIVE[1]]},
        comparable=LLAMA,
        statistics=numbers,
    )
