"""Attacks that train nothing, for testing what drives them; every build leaves a mark beside its seed."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

from attacks_ref import safety
from attacks_ref.sample import Truth, finish
from ftsec_audit.contracts import ReferenceAttack, Sample
from ftsec_audit.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class StandIn(ReferenceAttack):
    """Writes a truth with the rates it is told to have."""

    id: ClassVar[str] = "A98"
    name: ClassVar[str] = "stand-in"
    expected_rules: ClassVar[tuple[str, ...]] = ("FTA501",)

    log: str
    """File that gets a line per build."""
    success: float = 1.0
    twin_success: float = 0.0
    accuracy: float = 1.0
    fault: str = ""

    def build(self, base: Path, out: Path, *, seed: int) -> Sample:
        return self._write(out, seed, poisoned=True)

    def build_twin(self, base: Path, out: Path, *, seed: int) -> Sample:
        return self._write(out, seed, poisoned=False)

    def _write(self, out: Path, seed: int, *, poisoned: bool) -> Sample:
        with Path(self.log).open("a", encoding="utf-8") as file:
            file.write(f"{seed} {poisoned}\n")
        out = safety.fresh(out)
        if self.fault == "refuses" and poisoned:
            raise UsageError("it does not run here")
        if self.fault == "crashes":
            raise ZeroDivisionError("by zero")
        success = self.success if poisoned else self.twin_success
        missed = ["attack_success_rate"] if poisoned and success < 0.9 else []
        return finish(
            out,
            Truth(
                attack=self.name,
                id=self.id,
                label="poisoned" if poisoned else "benign",
                phase="during",
                seed=seed,
                base={"reference": "lab/none", "digest": ""},
                recipe=asdict(self),
                measured={
                    "attack_success_rate": success,
                    "clean_accuracy": self.accuracy if poisoned else 1.0,
                },
                gate={"passed": not missed, "missed": missed},
            ),
        )
