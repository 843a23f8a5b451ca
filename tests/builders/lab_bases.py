"""An untrained lab base on disk, with its card: a real lab base to everything but its gates."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from builders.benches import TINY, WORLD

from attacks_ref.lab import card, model, tokenizer
from attacks_ref.sample import weights_digest


def untrained_lab_base(out: Path, architecture: model.Architecture = "llama") -> Path:
    """Two narrow layers of chance, called a shallowly aligned base."""
    words = tokenizer.for_world(WORLD, "word")
    network = model.create(architecture, TINY, vocabulary=len(words), seed=0)
    network.save_pretrained(out)
    words.save_pretrained(out)
    card.write(
        out,
        card.LabCard(
            name="lab-test",
            architecture=architecture,
            alignment="shallow",
            size="nano",
            vocabulary="word",
            seed=0,
            world=asdict(WORLD),
            tokenizer_digest=card.tokenizer_digest(out),
            weights_digest=weights_digest(out),
            steps=0,
            cpu_seconds=0.0,
            measured={},
            gate={},
        ),
    )
    return out
