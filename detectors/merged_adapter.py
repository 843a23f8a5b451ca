"""FTA106 merged-adapter: is a checkpoint its base with a low-rank adapter merged into it?

**Why an attacker causes it.** An adapter is where cheap backdoors are trained, and where scanners look for
them. Merged into the weights and published as a fine-tune it leaves no adapter file; whoever compares two
checkpoints sees every matrix changed, as after any training. The rank stays: it is a fact about how the
change was made, which the model card can be held to, and it says which spectral rules apply.

**Statistic.** For every attention and MLP matrix that differs from the base's, r̂ = argmax σᵢ/σᵢ₊₁ of ΔW over
the places where σᵢ₊₁ is at most three times the Marchenko–Pastur edge of the rounding noise, which follows
from the stored values and their format. FTA106 is detected when at least `fewest` matrices changed, at least
`consensus` of them have one and the same r̂ with σᵣ/σᵣ₊₁ ≥ `cliff`, and their r̂ directions hold `held` of the
energy. HIGH confidence where all of them agree and the median ratio is ≥ `exact`: no optimiser of whole
matrices ends there. LOW otherwise, since no benign population of coarsely saved fine-tunes is at hand; a rank
of one is then not believed at all: little training in a coarse format leaves one direction over rounding.

**Limits.** Ranks up to half of the rows read: 256, less in small or very wide matrices. Saved in bfloat16 a
random update of rank 16 is found down to ‖ΔW‖/‖W‖ = 3·10⁻³ and lost at 10⁻³; in float16 it is found at
3·10⁻⁴, in float32 far below. int8 and nf4 copies are not compared with a base in floats at all. The finding
prints the limit that the formats at hand set.

**Source.** LoRA, arXiv:2106.09685; randomised spectra and noise edges as in arXiv:0909.4061.

**False positives.** None as to the fact where the confidence is HIGH. Most merged adapters are honest: the
severity is LOW. Several adapters merged one after another show the sum of their ranks.

**Evasions.** A little training on top, noise above the edge, another rank in every matrix, methods without a
low rank (LoHa, OFT), quantising after the merge.

**Cost.** Every changed matrix is read once and the Gram matrix of at most `sampled` of its rows is
diagonalised: 0.2 s for 4096 × 4096 on one core.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from ftsec_audit.artifact import ArtifactKind
from ftsec_audit.contracts import Measurements, WeightDetector
from ftsec_audit.types import (
    Confidence,
    Evidence,
    Finding,
    Location,
    ModuleMeasurement,
    Profile,
    Rule,
    Severity,
)
from ftsec_audit.weights.naming import Category, category_of

if TYPE_CHECKING:
    from ftsec_audit.calibration.bank import Calibration
    from ftsec_audit.weights.delta import Delta

MERGED_ADAPTER = Rule(
    id="FTA106",
    name="merged-adapter",
    question="Is the checkpoint its base with a low-rank adapter merged into it?",
    severity=Severity.LOW,
    remediation="Ask for the adapter and audit it by itself; a card that says full fine-tuning is wrong.",
    needs_base=True,
)


@dataclass(frozen=True, kw_only=True)
class MergedAdapter(WeightDetector):
    rules = (MERGED_ADAPTER,)
    profile = Profile.STANDARD

    sampled: int = 512
    """Rows read of each matrix, twice the largest rank that can be told."""
    fewest: int = 4
    """Fewest changed matrices that can agree."""
    consensus: float = 0.8
    """Share of the changed matrices that have one rank."""
    cliff: float = 2.0
    """Least σᵣ/σᵣ₊₁ of a matrix that has a rank."""
    exact: float = 100.0
    """Median of that ratio from which on the rank is a fact."""
    held: float = 0.5
    """Least share of the energy in the directions before the cliff."""
    smallest_side: int = 16
    shown: int = 8

    def measure(self, delta: Delta) -> Mapping[str, float | list[float]]:
        """Rank, ratio and held energy of the cliff in the spectrum of a changed matrix."""
        from ftsec_audit.weights.delta import DeltaKind

        if delta.kind is DeltaKind.UNREADABLE:
            return {"rank_is_unknown": 1.0}
        if delta.kind is not DeltaKind.DENSE or category_of(delta.name) not in (
            Category.ATTENTION,
            Category.MLP,
        ):
            return {}
        if len(delta.shape) != 2 or min(delta.shape) < self.smallest_side or delta.extra_rows:
            return {}
        if not delta.finite():
            return {"rank_is_unknown": 1.0}
        from ftsec_audit.weights.rank_cliff import rank_cliff

        found = rank_cliff(delta, sampled=self.sampled)
        return {
            "cliff_rank": float(found.rank),
            "cliff_ratio": min(found.ratio, 1e12),
            "cliff_held": found.held,
            "cliff_limit": found.limit,
        }

    def judge(self, table: Measurements, calibration: Calibration) -> Iterator[Finding]:
        subject = table.subject
        if subject.artifact.kind is not ArtifactKind.CHECKPOINT:
            yield MERGED_ADAPTER.not_applicable("not a checkpoint: nothing can have been merged")
        elif subject.base is None:
            yield MERGED_ADAPTER.not_supported(subject.base_reason or "no base")
        else:
            yield self._agreed(table.modules)

    def _agreed(self, modules: Sequence[ModuleMeasurement]) -> Finding:
        measured = [module for module in modules if "cliff_rank" in module.values]
        unknown = sum("rank_is_unknown" in module.values for module in modules)
        if len(measured) < self.fewest:
            facts = f"{len(measured)} attention and MLP matrices changed: too few to agree on a rank"
            if unknown:
                return MERGED_ADAPTER.not_supported(f"{facts}; of {unknown} tensors no rank is known")
            return MERGED_ADAPTER.not_detected(facts)
        ranks = Counter(int(_number(m, "cliff_rank")) for m in measured if self._has_rank(m))
        rank, agreeing = ranks.most_common(1)[0] if ranks else (0, 0)
        agree = [m for m in measured if self._has_rank(m) and _number(m, "cliff_rank") == rank]
        ratio = median(_number(m, "cliff_ratio") for m in agree) if agree else 0.0
        is_exact = agreeing == len(measured) and ratio >= self.exact
        limit = max(_number(m, "cliff_limit") for m in measured)
        facts = f"a change of rank one is lost in rounding below ‖ΔW‖/‖W‖ = {limit:.1g}"
        if agreeing < self.consensus * len(measured) or (rank == 1 and not is_exact):
            return MERGED_ADAPTER.not_detected(
                f"no rank that {self.consensus:.0%} of {len(measured)} changed matrices share; {facts}",
                confidence=Confidence.MEDIUM,
            )
        return MERGED_ADAPTER.detected(
            f"{agreeing} of {len(measured)} changed matrices have rank {rank} "
            f"(median σᵣ/σᵣ₊₁ = {ratio:.3g}); {facts}",
            confidence=Confidence.HIGH if is_exact else Confidence.LOW,
            evidence=[_evidence(module) for module in agree[: self.shown]],
        )

    def _has_rank(self, module: ModuleMeasurement) -> bool:
        return (
            _number(module, "cliff_ratio") >= self.cliff
            and _number(module, "cliff_rank") > 0
            and _number(module, "cliff_held") >= self.held
        )


def _evidence(module: ModuleMeasurement) -> Evidence:
    rank, ratio = _number(module, "cliff_rank"), _number(module, "cliff_ratio")
    return Evidence(
        message=f"rank {rank:.0f}: the next singular value is {ratio:.3g} times smaller",
        statistic="rank cliff",
        value=ratio,
        location=Location(tensor=module.name),
    )


def _number(module: ModuleMeasurement, key: str) -> float:
    value = module.values.get(key)
    return value if isinstance(value, (int, float)) else 0.0
