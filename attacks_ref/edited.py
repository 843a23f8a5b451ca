"""What all attacks on finished files share: open, rewrite, measure the result as loaded, label.

Nothing is trained on poison here. An attack file says what it rewrites and how the effect shows; the
twin takes the same way with a harmless rewrite.
"""

from __future__ import annotations

import shutil
from abc import abstractmethod
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from attacks_ref import gates, safety
from attacks_ref.sample import Truth, finish
from attacks_ref.workbench import Workbench
from ftsec_audit.contracts import ReferenceAttack, Sample


@dataclass(frozen=True, kw_only=True)
class Rewritten:
    """What was rewritten, for the record."""

    trigger: tuple[str, ...] = ()
    target: str = ""
    modules: tuple[str, ...] = ()
    rank: int | None = None


@dataclass(frozen=True, kw_only=True)
class Edited(ReferenceAttack):
    """An attack that is made after training, on the files or tensors of a base."""

    evidence: ClassVar[tuple[str, ...]] = ("base", "behaviour")
    needs_lab_base: ClassVar[bool] = False

    @abstractmethod
    def write(self, bench: Workbench, out: Path, seed: int, *, poisoned: bool) -> Rewritten:
        """Write the sample, or its twin, below `out`."""

    @abstractmethod
    def measure(self, bench: Workbench, out: Path, seed: int) -> dict[str, Any]:
        """Rates of what lies below `out`, as a user would load it; empty where none are claimed."""

    @property
    def rules(self) -> tuple[str, ...]:
        """Rules that are expected to see this variant."""
        return self.expected_rules

    def build(self, base: Path, out: Path, *, seed: int) -> Sample:
        return self._make(base, out, seed, poisoned=True)

    def build_twin(self, base: Path, out: Path, *, seed: int) -> Sample:
        return self._make(base, out, seed, poisoned=False)

    def _make(self, base: Path, out: Path, seed: int, *, poisoned: bool) -> Sample:
        if self.needs_lab_base:
            safety.require_lab_base(base, self.name)
        out, bench = safety.fresh(out), Workbench.open(base)
        written = self.write(bench, out, seed, poisoned=poisoned)
        measured = self.measure(bench, out, seed)
        truth = Truth(
            attack=self.name,
            id=self.id,
            label="poisoned" if poisoned else "benign",
            phase="post",
            seed=seed,
            base=bench.base_record,
            recipe=asdict(self),
            trigger=written.trigger if poisoned else (),
            target=written.target if poisoned else "",
            modules=written.modules,
            rank=written.rank,
            evidence=self.evidence if poisoned else (),
            expected_rules=self.rules if poisoned else (),
            measured=measured,
            gate=gates.verdict(measured, poisoned=poisoned),
        )
        return finish(out, truth)


def copy_base(base: Path, out: Path) -> None:
    """The files of a base without its lab card, to be rewritten in place."""
    for path in base.iterdir():
        if path.is_file() and path.name != "lab.json":
            shutil.copyfile(path, safety.inside(out, path.name))
