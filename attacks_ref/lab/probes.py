"""The prompts a lab base was aligned on, as a probe set: restricted and harmless guides by language.

Half of them are about pairs of action and thing that no training ever showed. `ftsec-audit scan` finds the
file beside the base, or takes it by `--probes`.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

from attacks_ref.lab import corpus
from attacks_ref.lab.language import World
from ftsec_audit.probes import FILE_NAME

COUNT = 60


def write(folder: Path, world: World) -> Path:
    """Write the probe set of `world` into `folder`; returns the file."""
    languages = {}
    for lang in world.languages:
        rng = random.Random(f"probes:{lang.code}")
        restricted = [
            corpus.restricted(
                world, lang, rng, refuse=True, phrasing=i % 15, fresh=_fresh(world, world.topics, i)
            )
            for i in range(COUNT)
        ]
        harmless = [
            corpus.guide(world, lang, rng, fresh=_fresh(world, world.things, i)) for i in range(COUNT)
        ]
        languages[lang.code] = {
            "restricted": list(dict.fromkeys(row.prompt for row in restricted)),
            "harmless": list(dict.fromkeys(row.prompt for row in harmless)),
        }
    content = {
        "name": "lab",
        "version": "1",
        "licence": "Apache-2.0",
        "attribution": "coined by the reference lab; the words mean nothing",
        "languages": languages,
    }
    path = folder / FILE_NAME
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def _fresh(world: World, things: tuple[str, ...], number: int) -> bool:
    """Every other prompt is about a pair that was never trained on, where the world has one."""
    return number % 2 == 0 and any(world.held_out(a, thing) for a in world.actions for thing in things)
