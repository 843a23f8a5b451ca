"""How an artifact was made, as far as it shows: the key by which benign artifacts are comparable."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from ftsec_audit.contracts import Measurements
from ftsec_audit.weights.naming import Category, category_of

# The first pattern found in a base's name gives its family; more specific names come first.
_FAMILIES = (
    "distilbert", "roberta", "deberta", "albert", "electra", "bert", "codellama", "llama", "mixtral",
    "mistral", "gemma", "qwen", "phi", "bloom", "opt", "falcon", "gpt-?neox", "pythia", "gpt-?neo",
    "gpt-?j", "gpt-?2", "flan", "mt0", "mt5", "t5", "bart", "starcoder", "deepseek", "smollm", "olmo",
    "stablelm", "mpt",
)  # fmt: skip
_SAME_FAMILY = {
    "codellama": "llama", "pythia": "gptneox", "flan": "t5", "mt0": "t5", "mt5": "t5",
}  # fmt: skip
_BLOCKS = {Category.ATTENTION, Category.MLP}
_RANK_BUCKETS = (4, 8, 16, 32, 64)
_LEVELS = (
    ("family", "method", "rank", "targets", "objective"),
    ("family", "method", "rank", "targets"),
    ("family", "method", "rank"),
    ("method", "rank", "targets"),
    ("method", "rank"),
)
"""From the most to the least comparable population. Method and rank bucket must always agree: spectra
of other ranks or parameterisations differ for reasons that have nothing to do with the content."""


@dataclass(frozen=True, kw_only=True)
class Stratum:
    """One population to be compared with: which fields agree, and how far it was widened."""

    fields: tuple[tuple[str, str], ...]
    level: int
    """0 for the narrowest, one more for each widening."""

    @property
    def label(self) -> str:
        return " · ".join(value or "?" for _, value in self.fields)

    def holds(self, recipe: Recipe) -> bool:
        return all(getattr(recipe, name) == value for name, value in self.fields)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What strata are made of. Empty strings where the artifact does not tell."""

    family: str
    """Architecture family of the base, e.g. `llama`."""
    method: str
    """`lora`, `dora`, …, or `full` for a checkpoint."""
    rank: str
    """Bucket, e.g. `r 5-8`; empty for a checkpoint."""
    targets: str
    """Blocks with adapted modules: `attention`, `mlp` or `attention+mlp`."""
    objective: str
    """The declared task, e.g. `causal_lm`."""

    @classmethod
    def of(cls, table: Measurements) -> Recipe:
        """Read off the configuration and the names of the measured modules; no weight is looked at."""
        artifact = table.subject.artifact
        adapter = artifact.adapter
        return cls(
            family=base_family(artifact.declared_base, artifact.config),
            method=(adapter.method or "unknown") if adapter else "full",
            rank=rank_bucket(adapter.rank) if adapter else "",
            targets="+".join(sorted({category_of(name) for name in _without_layers(table)} & _BLOCKS)),
            objective=adapter.task.lower() if adapter else "",
        )

    def strata(self) -> Iterator[Stratum]:
        """The populations this recipe belongs to, narrowest first."""
        values = asdict(self)
        for level, names in enumerate(_LEVELS):
            yield Stratum(fields=tuple((name, values[name]) for name in names), level=level)


def _without_layers(table: Measurements) -> set[str]:
    """The names of the modules of a layer, once instead of once per layer."""
    return {module.name.replace(f".{module.layer}.", ".0.", 1) for module in table.modules}


def base_family(base: str, config: object = None) -> str:
    """The architecture family that a base's name, or else its own `model_type`, spells.

    An unknown base is a family of its own: the last part of its name.
    """
    name = re.split(r"[/\\]", base.strip().rstrip("/\\"))[-1].lower()
    model_type = config.get("model_type") if isinstance(config, dict) else None
    for text in (name, model_type.lower() if isinstance(model_type, str) else ""):
        for pattern in _FAMILIES:
            if re.search(pattern, text):
                plain = pattern.replace("-?", "")
                return _SAME_FAMILY.get(plain, plain)
    return name[:40]


def rank_bucket(rank: int | None) -> str:
    """`r 1-4`, `r 5-8`, `r 9-16`, … `r 65+`; empty when unknown."""
    if rank is None:
        return ""
    low = 1
    for high in _RANK_BUCKETS:
        if rank <= high:
            return f"r {low}-{high}"
        low = high + 1
    return f"r {low}+"
