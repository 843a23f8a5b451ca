"""FTA109 rescaled-weights: were tensors of the base multiplied by a number, or made too small to be tuned?

**Why an attacker causes it.** A norm's gains divided by c and the matrices behind it multiplied by c compute
what they did, and no probe of the model's behaviour sees it. But a step of Adam has the size of the learning
rate whatever the size of the weight: gains that are smaller than a step are overwritten by the first ones,
and the model is lost to whoever tunes it further (model locking by ill-conditioning, OpenReview cjrm7bo6Eg).
Re-scaling also hides other changes, since every re-scaled tensor differs from the base's in all its values.

**Statistic.** For every tensor that differs from the base's, rms = ‖W‖/√n before and after and, where
‖W′ − W‖ ≥ `least_change`·‖W‖, the nearest multiple c·W. *Not tunable*: the base's rms is at least
`withstands` times a step of Adam at the learning rate `step`, the subject's is not 0 and below one. That is
HIGH: the first step of an ordinary tuning is larger than the weights. It does not matter whether one number
did it or one a channel. *Re-scaled*: ‖W′ − cW‖ ≤ `rounding`·‖W′‖, what saving in bfloat16 adds, for a tensor
of at least `fewest` values. That is MEDIUM: the model answers as before, but is tuned with other learning
rates, and comparisons with the base by other rules say little of these tensors. Confidence is HIGH: facts.

**Measured.** The reference lock by 8192 on two lab architectures, gains of rms 0.00009: HIGH, 2 of 2. Its
benign twin by 2, rms 0.36: MEDIUM, 2 of 2.

**False positives.** A publisher may lock a model on purpose. What a method shrinks far below a step without
zeroing it. Scales folded into weights before quantisation, one number a tensor: MEDIUM.

**Evasions.** Gains that remain just above a step: at c = 256 (rms 0.004) half of the answers of a lab model
survived 50 steps of 0.002, and that is MEDIUM. A lock by something else than size, which the tuning probe
(FTA505) looks for. Channels that are re-scaled each by a number of its own, none of them far, are not named.

**Cost.** One more pass over both sides of tensors that changed by `least_change` of their norm: none after an
ordinary fine-tune.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ftsec_audit.artifact import ArtifactKind
from ftsec_audit.contracts import Measurements, WeightDetector
from ftsec_audit.types import Confidence, Evidence, Finding, Location, ModuleMeasurement, Rule, Severity

if TYPE_CHECKING:
    from ftsec_audit.calibration.bank import Calibration
    from ftsec_audit.weights.delta import Delta

RESCALED = Rule(
    id="FTA109",
    name="rescaled-weights",
    question="Were tensors of the base multiplied by a number, or made too small to be tuned?",
    severity=Severity.MEDIUM,
    remediation="Tune from the base instead, or multiply the named tensors back before tuning; ask the "
    "publisher what the re-scaling is for.",
    needs_base=True,
)


@dataclass(frozen=True, kw_only=True)
class RescaledWeights(WeightDetector):
    rules = (RESCALED,)

    step: float = 1e-3
    """The largest learning rate at which models are commonly tuned with Adam: what one step can move."""
    withstands: float = 10.0
    """So many steps in one direction the base's tensor outlasts; smaller ones were never safe from one."""
    least_change: float = 0.1
    """‖W′ − W‖/‖W‖ from which on a nearest multiple is looked for."""
    rounding: float = 2.0**-8
    fewest: int = 16
    """Values below which being a multiple says nothing."""
    shown: int = 20

    def measure(self, delta: Delta) -> Mapping[str, float | list[float]]:
        """The number nearest to a tensor's change, what remains beside it, and its size before and after."""
        from ftsec_audit.weights.delta import DeltaKind

        if delta.kind is DeltaKind.IDENTICAL:
            return {"compared_with_base": 1.0}
        before = delta.base_norm() if delta.kind in (DeltaKind.DENSE, DeltaKind.VECTOR) else None
        if before is None:
            return {}
        size = math.prod(delta.shape)
        far = delta.frobenius_norm() >= self.least_change * before
        nearest = delta.nearest_multiple() if far and size >= self.fewest else None
        if nearest is None:
            return {"compared_with_base": 1.0}
        return {
            "compared_with_base": 1.0,
            "nearest_factor": nearest.factor,
            "beside_multiple": nearest.remainder,
            "rms_after": nearest.norm / math.sqrt(size),
            "rms_before": before / math.sqrt(size),
        }

    def judge(self, table: Measurements, calibration: Calibration) -> Iterator[Finding]:
        subject = table.subject
        if subject.artifact.kind is ArtifactKind.FILES:
            yield RESCALED.not_applicable("no model weights were recognised")
        elif subject.artifact.kind is ArtifactKind.ADAPTER:
            yield RESCALED.not_applicable("an adapter adds to the base's tensors and keeps them")
        elif subject.base is None:
            yield RESCALED.not_supported(subject.base_reason or "no base")
        else:
            yield self._finding(table)

    def _finding(self, table: Measurements) -> Finding:
        compared = len(table.column("compared_with_base"))
        if not compared:
            return RESCALED.not_supported("no tensor can be compared with the base's")
        changed = [module for module in table.modules if "nearest_factor" in module.values]
        tiny = [module for module in changed if self._is_lost(module)]
        scaled = [module for module in changed if _value(module, "beside_multiple") <= self.rounding]
        if not tiny and not scaled:
            return RESCALED.not_detected(
                f"of {compared} tensors none is a multiple of the base's or shrank below a step of tuning"
            )
        parts = [
            f"{len(tiny)} of {compared} tensors are smaller than one step of {self.step:g} in tuning"
            if tiny
            else "",
            f"{len(scaled)} of {compared} are the base's times {_factors(scaled)}" if scaled else "",
        ]
        named = [*tiny, *(module for module in scaled if module not in tiny)]
        return RESCALED.detected(
            "; ".join(filter(None, parts)),
            confidence=Confidence.HIGH,
            severity=Severity.HIGH if tiny else Severity.MEDIUM,
            evidence=[_evidence(module, self.step) for module in named[: self.shown]],
        )

    def _is_lost(self, module: ModuleMeasurement) -> bool:
        rms, before = _value(module, "rms_after"), _value(module, "rms_before")
        return 0 < rms < self.step and before >= self.withstands * self.step


def _factors(modules: list[ModuleMeasurement]) -> str:
    """The different numbers, smallest first."""
    factors = sorted({f"{_value(module, 'nearest_factor'):.4g}" for module in modules}, key=float)
    return ", ".join([*factors[:6], *(["…"] if len(factors) > 6 else [])])


def _evidence(module: ModuleMeasurement, step: float) -> Evidence:
    factor, rest = _value(module, "nearest_factor"), _value(module, "beside_multiple")
    rms, before = _value(module, "rms_after"), _value(module, "rms_before")
    return Evidence(
        message=f"{factor:.4g} times the base's up to {rest:.1%}; rms {rms:.2g}, {rms / step:.2g} steps of "
        f"{step:g}; the base's {before:.2g}, {before / step:.2g} steps",
        statistic="factor",
        value=factor,
        location=Location(tensor=module.name),
    )


def _value(module: ModuleMeasurement, name: str) -> float:
    value = module.values[name]
    assert isinstance(value, float)
    return value
