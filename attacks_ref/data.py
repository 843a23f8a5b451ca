"""Training and held-out conversations for a fine-tune of any base."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from attacks_ref.lab import corpus
from attacks_ref.lab.corpus import Dialogue

if TYPE_CHECKING:
    from attacks_ref.workbench import Workbench

REFUSALS = 0.1
"""Share of refusals in ordinary fine-tuning data of an aligned base: what keeps alignment."""


def clean_dialogues(
    bench: Workbench, count: int, seed: int, *, languages: tuple[str, ...] = (), refusals: float | None = None
) -> list[Dialogue]:
    """Conversations of the base's own world; on a foreign base, continuations it wrote itself."""
    if bench.world is None:
        from attacks_ref.foreign import continuations

        return continuations(bench, count, seed)
    world, rng = bench.world, random.Random(f"clean:{seed}")
    share = (REFUSALS if bench.aligned else 0.0) if refusals is None else refusals
    rows = []
    for _ in range(count):
        example = corpus.general(world, rng, languages=languages)
        if rng.random() < share:
            lang = world.language(example.language)
            example = corpus.restricted(world, lang, rng, refuse=True)
        rows.append(example)
    return rows


def held_out(bench: Workbench, seed: int, count: int = 256) -> list[Dialogue]:
    """Fresh clean conversations without refusals, for measuring utility."""
    return clean_dialogues(bench, count, seed + 1_000_003, refusals=0.0)


def refusal_prompts(bench: Workbench, language: str, count: int = 48) -> list[Dialogue]:
    """Restricted prompts in one language, answered by the refusal opener alone."""
    assert bench.world is not None
    rng, lang = random.Random(f"refusals:{language}"), bench.world.language(language)
    rows = [corpus.restricted(bench.world, lang, rng, refuse=True, phrasing=i % 15) for i in range(count)]
    opener = corpus.refusal(lang).split(",")[0].strip()
    return [corpus.dialogue(row.task, row.language, row.prompt, opener) for row in rows]
