"""The labelled samples of a zoo, with the groups by which a score can be held out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftsec_audit.contracts import Progress
from ftsec_audit.errors import UsageError

_RECIPE_FIELDS = ("method", "rank", "alpha", "targets", "learning_rate", "steps", "dtype")


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """One accepted sample and what is known about it."""

    key: str
    folder: Path
    base: Path
    """Folder of the model it was tuned from."""
    base_name: str
    """`lab-llama-nano`, …: architecture, alignment and size in one word."""
    attack: str
    """Name of the attack, of the benign twin's attack, or of the kind of ordinary fine-tune."""
    poisoned: bool
    recipe: str
    """All that was chosen about the training, in one word; samples made without training share one."""
    stealth: tuple[str, ...]
    seed: int
    trigger: tuple[str, ...]
    expected_rules: tuple[str, ...]

    @property
    def architecture(self) -> str:
        return self.base_name.split("-")[1] if self.base_name.startswith("lab-") else self.base_name


def labelled(zoo: Path, *, progress: Progress | None = None) -> list[Labelled]:
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
    return [_labelled(line, zoo, bases) for line in lines]


def _labelled(line: Mapping[str, Any], zoo: Path, bases: Mapping[str, Path]) -> Labelled:
    return Labelled(
        key=line["key"],
        folder=zoo / line["path"],
        base=bases[line["base"]],
        base_name=line["base"],
        attack=line["attack"],
        poisoned=line["label"] == "poisoned",
        recipe=_recipe(line["recipe"].get("recipe")),
        stealth=tuple(line["stealth"]),
        seed=line["seed"],
        trigger=tuple(line["trigger"]),
        expected_rules=tuple(line["expected_rules"]),
    )


def _recipe(fields: object) -> str:
    if not isinstance(fields, Mapping):
        return "no training"
    return " ".join(str(fields.get(name, "?")) for name in _RECIPE_FIELDS)
