"""The labelled samples of a zoo, with the groups by which a score can be held out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftsec_audit.contracts import Progress
from ftsec_audit.errors import UsageError

NO_TRAINING = "no training"
_RECIPE_FIELDS = ("method", "rank", "alpha", "targets", "learning_rate", "steps", "dtype")


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """What is known about one accepted sample."""

    key: str
    base_name: str
    """`lab-llama-nano`, …: architecture, alignment and size in one word."""
    attack: str
    """Name of the attack, of the benign twin's attack, or of the kind of ordinary fine-tune."""
    poisoned: bool
    recipe: str
    """All that was chosen about the training, in one word; samples made without training share one."""
    job: str
    """Shared by an attack's sample, its twin, and the disguised copies of both."""
    stealth: tuple[str, ...]
    seed: int
    trigger: tuple[str, ...]
    expected_rules: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Located(Labelled):
    """A sample that is on this machine."""

    folder: Path
    base: Path
    """Folder of the model it was tuned from."""


def labelled(zoo: Path, *, progress: Progress | None = None) -> list[Located]:
    """The accepted samples below `zoo`, in the order of its manifest; raises UsageError when there are none.

    Bases that are not on this machine yet are trained.
    """
    from attacks_ref.zoo import base_folder, manifest

    lines = [line for line in manifest(zoo) if line["accepted"] and (zoo / line["path"]).is_dir()]
    if not lines:
        raise UsageError(
            "holds no accepted sample", where=str(zoo), hint="ftsec-audit attack --zoo smoke --out DIR"
        )
    names = dict.fromkeys(str(line["base"]) for line in lines)
    bases = {name: base_folder(name, progress or Progress()) for name in names}
    return [_located(line, zoo, bases) for line in lines]


def _located(line: Mapping[str, Any], zoo: Path, bases: Mapping[str, Path]) -> Located:
    return Located(
        key=line["key"],
        folder=zoo / line["path"],
        base=bases[line["base"]],
        base_name=line["base"],
        attack=line["attack"],
        poisoned=line["label"] == "poisoned",
        recipe=_recipe(line["recipe"].get("recipe")),
        job=_job(line),
        stealth=tuple(line["stealth"]),
        seed=line["seed"],
        trigger=tuple(line["trigger"]),
        expected_rules=tuple(line["expected_rules"]),
    )


def _recipe(fields: object) -> str:
    if not isinstance(fields, Mapping):
        return NO_TRAINING
    return " ".join(str(fields.get(name, "?")) for name in _RECIPE_FIELDS)


def _job(line: Mapping[str, Any]) -> str:
    """The attack with all its choices, base and seed; not the label and not the disguise."""
    choices = {name: value for name, value in line["recipe"].items() if name != "stealth"}
    content = json.dumps([line["attack"], line["base"], line["seed"], choices], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:12]
