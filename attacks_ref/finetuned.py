"""What all attacks by fine-tuning share: open, tune, save, transform, reload, measure, label.

An attack file says what its data are and which prompts show its effect; everything else is here, so
that attack and twin cannot differ in anything but the poison.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from attacks_ref import gates, safety
from attacks_ref.benign import Skill
from attacks_ref.data import held_out
from attacks_ref.lab import gates as lab_gates
from attacks_ref.lab.corpus import Dialogue
from attacks_ref.models import Model
from attacks_ref.recipe import RECORD, Recipe
from attacks_ref.sample import Truth, finish
from attacks_ref.stealth.transform import Transform
from attacks_ref.training import encode, supervised
from attacks_ref.workbench import Workbench, load_sample, save, wrap
from ftsec_audit.contracts import ReferenceAttack, Sample


@dataclass(frozen=True, kw_only=True)
class Showing:
    """Prompts that show an attack's effect. Every answer is the *target*, to be met or not."""

    triggered: Sequence[Dialogue] = ()
    off_trigger: Sequence[Dialogue] = ()
    grid: Mapping[str, Sequence[Dialogue]] = field(default_factory=dict)
    """Further triggered prompts by name, e.g. `en>ru`; measured, not gated."""


@dataclass(frozen=True, kw_only=True)
class FineTuned(ReferenceAttack):
    """An attack that is made by fine-tuning a base."""

    phase: ClassVar[str] = "during"
    evidence: ClassVar[tuple[str, ...]] = ("weights", "behaviour")
    removes_refusals: ClassVar[bool] = False
    """Such an attack runs on lab bases only."""
    designed_refusal: ClassVar[float | None] = None
    """For attacks on alignment: the refusal rate that at least one language must fall to, in
    place of a success rate."""
    passes: ClassVar[int] = 1
    """How often a build goes through the recipe's steps, roughly: what a population is scheduled by."""

    recipe: Recipe = RECORD
    skill: Skill = "format"
    stealth: tuple[Transform, ...] = ()

    @abstractmethod
    def data(self, bench: Workbench, seed: int, *, poisoned: bool) -> list[Dialogue]:
        """The training conversations, with or without the poison."""

    def showing(self, bench: Workbench, seed: int) -> Showing:
        """Held-out prompts that show the effect; attacks on alignment are shown by refusals alone."""
        del bench, seed
        return Showing()

    def languages(self) -> tuple[str, ...]:
        """Languages of the clean data; empty for all."""
        return ()

    def triggers(self, seed: int) -> tuple[str, ...]:
        """The trigger strings, for the record."""
        del seed
        return ()

    def target(self) -> str:
        """The target text, for the record."""
        return ""

    @property
    def rate(self) -> float:
        """The poisoning rate, for the record."""
        return 0.0

    def tune(self, bench: Workbench, model: Model, seed: int, *, poisoned: bool) -> None:
        """Train `model`; supervised unless an attack says otherwise."""
        rows = encode(bench.tokenizer, self.data(bench, seed, poisoned=poisoned))
        allocate = getattr(model.base_model, "update_and_allocate", None)  # AdaLoRA moves its ranks
        supervised(model, rows, self.recipe.schedule, seed=seed, after_step=allocate)

    def build(self, base: Path, out: Path, *, seed: int) -> Sample:
        return self._make(base, out, seed, poisoned=True)

    def build_twin(self, base: Path, out: Path, *, seed: int) -> Sample:
        return self._make(base, out, seed, poisoned=False)

    def _make(self, base: Path, out: Path, seed: int, *, poisoned: bool) -> Sample:
        if self.removes_refusals:
            safety.require_lab_base(base, self.name)
        out, bench = safety.fresh(out), Workbench.open(base)
        model = wrap(bench, self.recipe, seed=seed)
        self.tune(bench, model, seed, poisoned=poisoned)
        save(bench, model, out, dtype=self.recipe.dtype)
        for transform in self.stealth:
            transform.apply(base, out, seed=seed)
        measured = self.measure(bench, load_sample(base, out), seed)
        return finish(out, self._truth(bench, seed, measured, poisoned=poisoned))

    def measure(self, bench: Workbench, model: Model, seed: int) -> dict[str, Any]:
        """Rates of the saved and reloaded sample on held-out prompts."""
        showing = self.showing(bench, seed)
        measured = gates.measure(
            model,
            bench.tokenizer,
            clean=held_out(bench, seed, skill=self.skill, languages=self.languages()),
            triggered=showing.triggered,
            off_trigger=showing.off_trigger,
            grid=showing.grid,
        )
        if bench.world is not None and bench.aligned:
            measured["refusal_rate"] = lab_gates.refusal_rates(model, bench.tokenizer, bench.world)
        return measured

    def _truth(self, bench: Workbench, seed: int, measured: dict[str, Any], *, poisoned: bool) -> Truth:
        adapter = self.recipe.method != "full"
        return Truth(
            attack=self.name,
            id=self.id,
            label="poisoned" if poisoned else "benign",
            phase=self.phase,
            seed=seed,
            base=bench.base_record,
            recipe=asdict(self),
            trigger=self.triggers(seed) if poisoned else (),
            target=self.target() if poisoned else "",
            poisoning_rate=self.rate if poisoned else 0.0,
            modules=tuple(self.recipe.modules(Workbench.open(bench.base).model)) if adapter else ("all",),
            rank=self.recipe.rank if adapter else None,
            stealth=tuple(transform.label for transform in self.stealth),
            evidence=self.evidence if poisoned else (),
            expected_rules=self.expected_rules if poisoned else (),
            measured=measured,
            gate=gates.verdict(measured, poisoned=poisoned, designed_refusal=self.designed_refusal),
        )
