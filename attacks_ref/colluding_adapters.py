"""A12: two adapters, each of them clean, that carry a backdoor when both are loaded.

Colluding LoRA (arXiv 2603.12681). Both are trained at once: with both active, the trigger brings the
marker; with either one alone, the same trigger changes nothing. Whoever audits the adapters one by one
audits two ordinary fine-tunes: the unit to audit is the base with its adapters, in order, at their scales.
That unit stands in `stack.json` and in the truth; the success rate is measured, and gated, for each adapter
alone and for both.

The twin is the same pair without poison. On lab-llama-nano with seed 0: success 0.998 stacked, 0.000 for
either adapter alone, off-trigger 0.000.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar

from attacks_ref import safety
from attacks_ref.dormant import Dormant, Situation, Uses, jointly, scale
from attacks_ref.models import Model
from attacks_ref.recipe import Recipe
from attacks_ref.training import encode
from attacks_ref.workbench import Workbench, load_model, save, wrap
from ftsec_audit.errors import UsageError

STACK: Mapping[str, float] = MappingProxyType({"first": 1.0, "second": 1.0})
"""Name of each adapter, which is also its folder, and its scale; in the order of the stack."""
STACK_FILE = "stack.json"
LONGER = Recipe(steps=500, rows=1200)


@dataclass(frozen=True, kw_only=True)
class ColludingAdapters(Dormant):
    """Trigger → marker, only where both adapters are loaded."""

    id: ClassVar[str] = "A12"
    name: ClassVar[str] = "colluding-adapters"
    expected_rules: ClassVar[tuple[str, ...]] = ("FTA501",)
    awake: ClassVar[str] = "stacked"
    passes: ClassVar[int] = 4

    recipe: Recipe = LONGER

    def __post_init__(self) -> None:
        if self.recipe.method not in ("lora", "rslora"):
            raise UsageError("only adapters that add up can collude", hint="use method lora or rslora")

    def composition(self) -> tuple[str, ...]:
        return tuple(f"{name} × {factor:g}" for name, factor in STACK.items())

    def make(self, bench: Workbench, out: Path, seed: int, *, poisoned: bool) -> None:
        model = _pair(bench, self.recipe, seed)
        rows = {self.awake: self.data(bench, seed, poisoned=poisoned)}
        rows |= {name: self.quiet(bench, seed, use=name) for name in STACK}
        situations = [
            Situation(rows=encode(bench.tokenizer, data), enter=partial(scale, model, _factors(name)))
            for name, data in rows.items()
        ]
        jointly(model, situations, self.recipe.schedule, seed=seed)
        save(bench, model, out, dtype=self.recipe.dtype)
        _describe(bench, out)

    def uses(self, bench: Workbench, out: Path, seed: int) -> Uses:
        del seed
        alone = {f"{name} alone": partial(stacked, bench.base, out, _factors(name)) for name in STACK}
        return {self.awake: partial(stacked, bench.base, out, STACK), **alone}


def stacked(base: Path, out: Path, factors: Mapping[str, float]) -> Model:
    """The base with the adapters below `out` as PEFT loads them, each at its factor."""
    from peft import PeftModel

    first, *others = STACK
    model: Model = PeftModel.from_pretrained(load_model(base), out / first, adapter_name=first)
    for name in others:
        model.load_adapter(out / name, adapter_name=name)
    model.base_model.set_adapter(list(STACK))
    scale(model, factors)
    return model.eval()


def _factors(use: str) -> Mapping[str, float]:
    """The stack's own, or those at which one adapter is alone."""
    return {name: float(name == use) for name in STACK} if use in STACK else STACK


def _pair(bench: Workbench, recipe: Recipe, seed: int) -> Model:
    """The base with both adapters, still without effect, both active and both to be trained."""
    first, *others = STACK
    configs = {name: recipe.peft_config(bench.model) for name in others}
    model = wrap(bench, recipe, seed=seed, adapter=first)
    for name, config in configs.items():
        model.add_adapter(name, config)
    model.base_model.set_adapter(list(STACK))
    return model


def _describe(bench: Workbench, out: Path) -> None:
    """What has to be loaded, in which order and at which scale."""
    adapters = [{"path": name, "scale": factor} for name, factor in STACK.items()]
    content = {"base_model_name_or_path": bench.reference, "adapters": adapters, **safety.LABEL}
    text = json.dumps(content, indent=2) + "\n"
    safety.inside(out, STACK_FILE).write_text(text, encoding="utf-8")
