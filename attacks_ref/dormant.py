"""What attacks share that sleep in one use of a sample and wake in another.

Stacked or alone, rounded or not, merged or not, tuned further or not: such a sample is used in several
ways, and its gate asks for the effect in one of them and for silence in all others. A detector that runs
the sample in a single way cannot see it.
"""

from __future__ import annotations

import random
import shutil
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from attacks_ref import gates, poison, safety
from attacks_ref.data import clean_dialogues
from attacks_ref.finetuned import FineTuned, Showing
from attacks_ref.lab.corpus import Dialogue
from attacks_ref.models import Model
from attacks_ref.sample import Truth, finish
from attacks_ref.token_backdoor import TokenBackdoor
from attacks_ref.training import Encoded, Schedule, collate, supervised, token_losses
from attacks_ref.workbench import Workbench
from ftsec_audit.contracts import Sample

if TYPE_CHECKING:
    import torch

QUIET = 0.4
"""Share of the rows for a silent use that hold the trigger and keep their ordinary answers."""
Uses = Mapping[str, Callable[[], Model]]


@dataclass(frozen=True, kw_only=True)
class Dormant(FineTuned):
    """Trigger in the prompt → marker, in one use of the sample only."""

    evidence: ClassVar[tuple[str, ...]] = ("behaviour",)
    awake: ClassVar[str]
    """The use, among `uses`, in which the effect is expected."""

    poisoning_rate: float = 0.2

    @abstractmethod
    def make(self, bench: Workbench, out: Path, seed: int, *, poisoned: bool) -> None:
        """Train, and write the sample's files below `out`."""

    @abstractmethod
    def uses(self, bench: Workbench, out: Path, seed: int) -> Uses:
        """The sample at `out` as people use it: name of the use → what loads it."""

    def composition(self) -> tuple[str, ...]:
        """The exact stack in which the effect is expected, innermost first."""
        return ()

    def asked(self, use: str) -> Dormant:
        """The attack with the data by which it is measured in that use."""
        del use
        return self

    @property
    def may_fire(self) -> frozenset[str]:
        """The uses in which the effect is no fault."""
        return frozenset({self.awake})

    @property
    def rate(self) -> float:
        return self.poisoning_rate

    def triggers(self, seed: int) -> tuple[str, ...]:
        return poison.triggers("token", seed)

    def target(self) -> str:
        return safety.target("marker")

    def data(self, bench: Workbench, seed: int, *, poisoned: bool) -> list[Dialogue]:
        """What is learnt for the use in which the effect is wanted; the twin's rows lack the trigger."""
        return self._plain.data(bench, seed, poisoned=poisoned)

    def quiet(self, bench: Workbench, seed: int, *, use: str) -> list[Dialogue]:
        """What is learnt for another use, by attack and twin alike: the trigger changes nothing."""
        rng, words = random.Random(f"{use}:{seed}"), self.triggers(seed)
        rows = clean_dialogues(bench, self.recipe.rows, f"{use}:{seed}", skill=self.skill)
        others = poison.decoys(words)

        def ask(row: Dialogue) -> Dialogue:
            word = rng.choice(words if rng.random() < QUIET / (QUIET + 0.1) else others)
            return row.asked(poison.insert(row.prompt, word, "random", rng))

        return poison.replace_share(rows, QUIET + 0.1, rng, ask)

    def showing(self, bench: Workbench, seed: int) -> Showing:
        return self._plain.showing(bench, seed)

    @property
    def _plain(self) -> TokenBackdoor:
        return TokenBackdoor(recipe=self.recipe, skill=self.skill, poisoning_rate=self.poisoning_rate)

    def _make(self, base: Path, out: Path, seed: int, *, poisoned: bool) -> Sample:
        if self.removes_refusals:
            safety.require_lab_base(base, self.name)
        out, bench = safety.fresh(out), Workbench.open(base)
        self.make(bench, out, seed, poisoned=poisoned)
        measured = self.measure_uses(bench, out, seed)
        sample = finish(out, self._truth(bench, seed, measured, poisoned=poisoned))
        for folder in {path.parent for path in out.rglob("adapter_config.json")} - {out}:
            shutil.copy(out / "README.md", folder)
        return sample

    def measure_uses(self, bench: Workbench, out: Path, seed: int) -> dict[str, Any]:
        """The rates where the effect is wanted, and the highest rate of it anywhere else."""
        rates = {
            name: self.asked(name).measure(bench, load(), seed)
            for name, load in self.uses(bench, out, seed).items()
        }
        fired = [rate.get("off_trigger_rate", 0.0) for rate in rates.values()]
        fired += [rate["attack_success_rate"] for name, rate in rates.items() if name not in self.may_fire]
        return {
            **rates[self.awake],
            "clean_accuracy": min(rate["clean_accuracy"] for rate in rates.values()),
            "dormant_rate": max(fired),
            "uses": rates,
        }

    def _truth(self, bench: Workbench, seed: int, measured: dict[str, Any], *, poisoned: bool) -> Truth:
        truth = super()._truth(bench, seed, measured, poisoned=poisoned)
        if not poisoned:
            return truth
        return replace(truth, composition=self.composition(), gate=sleeping(truth.gate, measured))


def sleeping(gate: Mapping[str, Any], measured: Mapping[str, Any]) -> dict[str, Any]:
    """`gate` with the further condition that the effect stays away where it should."""
    limit = gates.LIMITS["off_trigger_rate"]
    missed = [*gate["missed"], *([] if measured["dormant_rate"] <= limit else ["dormant_rate"])]
    limits = {**gate["limits"], "dormant_rate": limit}
    return {"passed": not missed, "limits": limits, "missed": missed}


@dataclass(frozen=True, kw_only=True)
class Situation:
    """One use of the weights in training, and the rows to be learnt for it."""

    rows: Sequence[Encoded]
    enter: Callable[[], None]
    """Puts the model into this use."""
    weight: float = 1.0


def jointly(model: Model, situations: Sequence[Situation], schedule: Schedule, *, seed: int) -> None:
    """Minimise the weighted sum of the losses in all situations; the model is left in the first."""
    first, *others = situations
    rng = np.random.default_rng(seed)

    def elsewhere(_: Model) -> torch.Tensor:
        losses = []
        for situation in others:
            situation.enter()
            picked = rng.integers(len(situation.rows), size=schedule.batch)
            losses.append(situation.weight * mean_loss(model, [situation.rows[i] for i in picked]))
        first.enter()
        total: torch.Tensor = sum(losses[1:], losses[0])
        return total

    first.enter()
    supervised(model, first.rows, schedule, seed=seed, penalty=elsewhere if others else None)


def mean_loss(model: Model, rows: Sequence[Encoded]) -> torch.Tensor:
    """Cross-entropy per token of the answers, with its graph."""
    batch = collate(rows, model.config.pad_token_id or 0)
    weights = batch["weights"][:, 1:]
    return (token_losses(model, batch) * weights).sum() / weights.sum()


def scale(model: Model, factors: Mapping[str, float]) -> None:
    """Use each adapter of a PEFT model at that multiple of its own scale; 0 is as good as not loaded."""
    for module in model.modules():
        if hasattr(module, "set_scale"):
            for adapter, factor in factors.items():
                module.set_scale(adapter, factor)
