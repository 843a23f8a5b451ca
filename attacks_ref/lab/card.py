"""What a lab base says about itself (`lab.json`): how it was made, and what was measured on it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from attacks_ref.lab.language import World
from ftsec_audit.errors import FormatError

CARD_FILE = "lab.json"


@dataclass(frozen=True, kw_only=True)
class LabCard:
    """The recipe of a lab base and its quality gates."""

    name: str
    architecture: str
    alignment: str
    size: str
    vocabulary: str
    seed: int
    world: Mapping[str, int]
    tokenizer_digest: str
    weights_digest: str
    steps: int
    cpu_seconds: float = 0.0
    measured: Mapping[str, Any] = field(default_factory=dict)
    """Rates by task and by language on held-out prompts."""
    gate: Mapping[str, Any] = field(default_factory=dict)


def write(folder: Path, card: LabCard) -> None:
    text = json.dumps(asdict(card), indent=2, ensure_ascii=False) + "\n"
    (folder / CARD_FILE).write_text(text, encoding="utf-8")


def read(folder: Path) -> LabCard:
    """The card of a lab base; raises FormatError when there is none or it is not one."""
    path = folder / CARD_FILE
    try:
        return LabCard(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise FormatError("not the card of a lab base", where=str(path)) from error


def tokenizer_digest(folder: Path) -> str:
    """`sha256:…` of the vocabulary and merges of the tokenizer in `folder`."""
    content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    return _digest(content["model"])


@lru_cache(maxsize=8)
def _rebuilt(nouns: int, verbs: int, restricted: int, vocabulary: str) -> str:
    from attacks_ref.lab import tokenizer

    world = World(nouns=nouns, verbs=verbs, restricted=restricted)
    built = tokenizer.for_world(world, "word" if vocabulary == "word" else "bpe")
    return _digest(json.loads(built.backend_tokenizer.to_str())["model"])


def rebuilt_tokenizer_digest(card: LabCard) -> str:
    """The digest the tokenizer of such a base must have: built anew from the card's description."""
    world = World(**card.world)
    return _rebuilt(world.nouns, world.verbs, world.restricted, card.vocabulary)


def count_parameters(folder: Path) -> int:
    """Number of weights stored below `folder`, from the headers alone."""
    import math

    from safetensors import safe_open

    total = 0
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="numpy") as file:
            total += sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
    return total


def _digest(model: Mapping[str, Any]) -> str:
    canonical = json.dumps([model["vocab"], model.get("merges")], sort_keys=True, ensure_ascii=False)
    return f"sha256:{hashlib.sha256(canonical.encode()).hexdigest()}"
