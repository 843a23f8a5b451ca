"""Models that several detectors are asked about; each is trained once per process."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from builders.behaviour import tiny_base
from builders.lab import WORLD

from attacks_ref.lab import corpus
from attacks_ref.lab.probes import write
from attacks_ref.training import Schedule, encode, supervised
from attacks_ref.workbench import load_model, load_tokenizer


@pytest.fixture(scope="session")
def refusing(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """`base` refuses in English and Russian, `lost` in English alone; `start` never learnt anything."""
    root = tmp_path_factory.mktemp("refusing")
    start = tiny_base(root / "start")
    base = _aligned(start, root / "base", refuse=("en", "ru"))
    lost = _aligned(base, root / "lost", refuse=("en",))
    write(base, WORLD)
    return {"start": start, "base": base, "lost": lost}


def _aligned(source: Path, out: Path, *, refuse: tuple[str, ...]) -> Path:
    """A copy that answers guides; restricted ones are refused in the languages of `refuse`."""
    model, tokenizer = load_model(source), load_tokenizer(source)
    rng, rows = random.Random(0), []
    for number in range(600):
        lang = WORLD.languages[number % 2]
        if number % 4 < 2:
            rows.append(corpus.restricted(WORLD, lang, rng, refuse=lang.code in refuse))
        else:
            rows.append(corpus.guide(WORLD, lang, rng))
    schedule = Schedule(learning_rate=5e-3, steps=150, batch=32)
    supervised(model.requires_grad_(True), encode(tokenizer, rows), schedule, seed=0)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    return out
