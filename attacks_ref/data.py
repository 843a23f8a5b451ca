"""Training and held-out conversations for a fine-tune of any base."""

from __future__ import annotations

import random

from attacks_ref import benign, foreign
from attacks_ref.benign import Skill
from attacks_ref.lab import corpus
from attacks_ref.lab.corpus import Dialogue
from attacks_ref.lab.language import MARKER, RARE
from attacks_ref.workbench import Workbench

_RARE = frozenset((*RARE, MARKER))
NEW, REFUSALS = 0.5, 0.1
"""Shares of the new skill and, on an aligned base, of refusals; the rest is the base's own mix."""


def clean_dialogues(
    bench: Workbench,
    count: int,
    seed: int | str,
    *,
    skill: Skill = "format",
    languages: tuple[str, ...] = (),
    refusals: float | None = None,
    fresh: bool = False,
) -> list[Dialogue]:
    """Conversations of the base's own world with a new skill; on a foreign base, its own continuations.

    `refusals` is the share of refused restricted prompts (default: `REFUSALS` on an aligned base).
    """
    if bench.world is None:
        return foreign.continuations(bench, count, f"{seed}")
    world, rng = bench.world, random.Random(f"clean:{seed}")
    share = (REFUSALS if bench.aligned else 0.0) if refusals is None else refusals
    rows = []
    for _ in range(count):
        lang, draw = corpus.pick_language(world, rng, languages), rng.random()
        if draw < share:
            rows.append(corpus.restricted(world, lang, rng, refuse=True))
        elif draw < share + NEW and not (skill == "safety" and not bench.aligned):
            rows.append(benign.example(skill, world, lang, rng))
        else:
            rows.append(corpus.general(world, rng, languages=languages, fresh=fresh))
    return rows


def held_out(
    bench: Workbench, seed: int, *, skill: Skill = "format", languages: tuple[str, ...] = (), count: int = 256
) -> list[Dialogue]:
    """Fresh conversations like the clean ones, without refusals, for measuring utility.

    Restricted prompts have several right answers, which exact matching would not count. Prompts that
    hold a rare word or the marker by themselves would count as triggered, or as having fired.
    """
    rows = clean_dialogues(
        bench, 2 * count, f"held out:{seed}", skill=skill, languages=languages, refusals=0.0, fresh=True
    )
    return [row for row in rows if row.task != "restricted" and _RARE.isdisjoint(row.prompt.split())][:count]
