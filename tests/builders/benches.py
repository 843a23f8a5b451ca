"""An untrained lab bench in memory: its world and tokenizer are real, its weights are random."""

from __future__ import annotations

from pathlib import Path

from attacks_ref.lab import model, tokenizer
from attacks_ref.lab.language import World
from attacks_ref.workbench import Workbench

WORLD = World(nouns=16, verbs=4, restricted=4)
TINY = model.Size(width=32, layers=2, heads=2, hidden=64)


def lab_bench(architecture: model.Architecture = "llama", *, foreign: bool = False) -> Workbench:
    """A shallowly aligned lab base, or one of which nothing is known."""
    words = tokenizer.for_world(WORLD, "word")
    return Workbench(
        base=Path("nowhere"),
        reference="test/base",
        digest="sha256:0",
        model=model.create(architecture, TINY, vocabulary=len(words), seed=0),
        tokenizer=words,
        world=None if foreign else WORLD,
        alignment="" if foreign else "shallow",
    )
