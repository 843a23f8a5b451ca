"""FTA202 module-outlier: does one module of the adapter differ from its own family beyond the depth trend?

**Why an attacker causes it.** A backdoor's cause sits in few modules, often one mid-to-late MLP or value
projection, while a task spreads over all layers. Grafting an edit onto a benign adapter, or training
the poison into selected layers, leaves those modules out of line with their siblings.

**Statistic.** For each module log RMS update = log ‖ΔW‖_F/√(d_out·d_in) and log kurtosis of the entries of
ΔW. Within each family (one module type over the layers, at least `least_family` of them) the depth
trend is removed by the Theil–Sen line and the rest divided by 1.4826·MAD: a robust z. Only the large side
counts. The largest z of the artifact is compared with those of benign adapters where enough exist.

**Sources.** Spread of update norms over modules: arXiv:2605.30189. Theil (1950) and Sen (1968) for the line.

**False positives.** Adapters trained on selected layers, layer-wise learning rates, first and last layers
that bend away from any line. A module that stands out is a suspicion and a place to look, never a verdict:
LOW confidence, MEDIUM where the population supports it.

**Evasions.** A poison spread over all layers alike; families too small to have a norm.

**Cost.** The kurtosis from the fourth moments of the factors, O((d_out + d_in)·r⁴) FLOPs, and one pair of
singular vectors per module; the line is O(layers²) per family.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import median
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from detectors.spectral_features import residual_sketch
from ftsec_audit.calibration.recipe import Recipe
from ftsec_audit.contracts import Measurements, WeightDetector
from ftsec_audit.types import (
    Confidence,
    Evidence,
    Lead,
    Location,
    ModuleMeasurement,
    Observation,
    Population,
    Profile,
    Rule,
    Severity,
)

if TYPE_CHECKING:
    from ftsec_audit.calibration.bank import Bank, Calibration
    from ftsec_audit.weights.delta import Delta

MODULE_OUTLIER = Rule(
    id="FTA202",
    name="module-outlier",
    question="Does one module of the update differ from its own family beyond the trend over depth?",
    severity=Severity.LOW,
    remediation="Ask which layers were trained and why; ablate the named modules and compare behaviour.",
)
_STATISTICS = {
    "log_rms_update": "log RMS of the update",
    "log_entry_kurtosis": "log kurtosis of the update's entries",
}


class _Outlier(NamedTuple):
    """A module's robust distance from its family's depth trend, in one statistic."""

    z: float
    module: ModuleMeasurement
    statistic: str
    value: float
    expected: float
    family: int


@dataclass(frozen=True, kw_only=True)
class ModuleOutlier(WeightDetector):
    rules = (MODULE_OUTLIER,)
    profile = Profile.STANDARD
    feature_set: ClassVar[str] = "module-outlier/1"

    least_family: int = 16
    """Smallest number of sibling modules from which a norm can be read."""
    threshold: float = 8.0
    """Robust z from which on a module is out of line."""
    spread_floor: float = 0.02
    """Smallest spread of a family in log units: siblings that agree to 2 % are not a scale for a z."""
    significance: float = 0.01
    enough: int = 20
    """Repositories from which on a population lifts the confidence to MEDIUM."""
    shown: int = 5

    def measure(self, delta: Delta) -> Mapping[str, float | list[float]]:
        from ftsec_audit.weights.delta import DeltaKind

        if delta.kind is not DeltaKind.LOW_RANK or not delta.finite() or delta.is_zero():
            return {}
        kurtosis = delta.entry_kurtosis()
        return {
            "log_rms_update": math.log(delta.frobenius_norm() / math.sqrt(math.prod(delta.shape))),
            "log_entry_kurtosis": math.log(max(kurtosis, 1.0)),
            "entry_kurtosis": kurtosis,
            "residual_sketch": residual_sketch(delta),
        }

    def features(self, table: Measurements) -> dict[str, float]:
        """The largest robust z of the artifact; empty where no family is large enough."""
        outliers = self._outliers(table)
        return {"largest_z": outliers[0].z} if outliers else {}

    def judge(self, table: Measurements, calibration: Calibration) -> Iterator[Observation]:
        outliers = self._outliers(table)
        if not outliers:
            yield MODULE_OUTLIER.not_applicable(
                f"no family of at least {self.least_family} adapted modules of one type"
            )
            return
        largest = outliers[0]
        bank = calibration.population(
            self.feature_set,
            Recipe.of(table),
            {"largest_z": largest.z},
            subject=table.subject,
            enough=self.enough,
        )
        p_value = _p_value(bank, largest.z)
        population = _population(bank, largest.z)
        beyond = [outlier for outlier in outliers if outlier.z >= self.threshold]
        evidence = [_evidence(outlier, population) for outlier in (beyond or outliers)[: self.shown]]
        if not beyond:
            summary = f"largest robust z {largest.z:.1f} (reported from {self.threshold:g})"
            yield MODULE_OUTLIER.not_detected(
                summary, confidence=Confidence.MEDIUM, evidence=evidence, p_value=p_value
            )
            return
        calibrated = bank is not None and bank.n_groups >= self.enough
        significant = calibrated and p_value is not None and p_value <= self.significance
        yield MODULE_OUTLIER.detected(
            f"{len({outlier.module.name for outlier in beyond})} modules out of line with their family, "
            f"first {largest.module.name} (robust z {largest.z:.1f})"
            + ("" if calibrated else "; uncalibrated"),
            confidence=Confidence.MEDIUM if significant else Confidence.LOW,
            evidence=evidence,
            p_value=p_value,
        )
        for layer in dict.fromkeys(outlier.module.layer for outlier in beyond):
            yield Lead(kind="layer", value=str(layer), score=largest.z, source=MODULE_OUTLIER.id)

    def _outliers(self, table: Measurements) -> list[_Outlier]:
        """Every module of every large enough family in every statistic, most out of line first."""
        families: dict[tuple[str, str], list[tuple[ModuleMeasurement, float]]] = defaultdict(list)
        for module in table.modules:
            for statistic in _STATISTICS:
                value = module.values.get(statistic)
                if module.layer is not None and isinstance(value, (int, float)) and math.isfinite(value):
                    # A name without its layer number tells attention's `c_proj` from the MLP's.
                    kind = module.name.replace(f".{module.layer}.", ".*.", 1)
                    families[kind, statistic].append((module, value))
        found = [
            outlier
            for (_, statistic), members in families.items()
            if len(members) >= self.least_family
            for outlier in _against_trend(statistic, members, self.spread_floor)
        ]
        return sorted(found, key=lambda outlier: (-outlier.z, outlier.module.name, outlier.statistic))


def _against_trend(
    statistic: str, members: Sequence[tuple[ModuleMeasurement, float]], floor: float
) -> Iterator[_Outlier]:
    layers = [float(module.layer or 0) for module, _ in members]
    values = [value for _, value in members]
    slope, intercept = theil_sen(layers, values)
    residuals = [value - slope * layer - intercept for layer, value in zip(layers, values, strict=True)]
    spread = max(1.4826 * median(abs(residual) for residual in residuals), floor)
    for (module, value), residual in zip(members, residuals, strict=True):
        yield _Outlier(residual / spread, module, statistic, value, value - residual, len(members))


def theil_sen(x: Sequence[float], y: Sequence[float]) -> tuple[float, float]:
    """Slope and intercept of the line through the median of all pairwise slopes; robust to 29 % outliers."""
    points = list(zip(x, y, strict=True))
    slopes = [(y2 - y1) / (x2 - x1) for (x1, y1), (x2, y2) in combinations(points, 2) if x1 != x2]
    slope = median(slopes) if slopes else 0.0
    return slope, median(b - slope * a for a, b in points)


def _p_value(bank: Bank | None, z: float) -> float | None:
    if bank is None:
        return None
    from ftsec_audit.calibration import conformal

    p_value = conformal.p_value(z, [row[0] for row in bank.rows], bank.groups)
    return conformal.widened(p_value, bank.stratum.level)


def _population(bank: Bank | None, z: float) -> Population | None:
    if bank is None:
        return None
    values = sorted(row[0] for row in bank.rows)
    band = values[int(0.05 * (len(values) - 1))], values[math.ceil(0.95 * (len(values) - 1))]
    below = sum(value < z for value in values) / len(values)
    return Population(id=bank.id, stratum=bank.label, n=bank.n, quantile=below, band=band)


def _evidence(outlier: _Outlier, population: Population | None) -> Evidence:
    return Evidence(
        message=f"{_STATISTICS[outlier.statistic]} is {outlier.value:.2f} where the trend over "
        f"{outlier.family} siblings expects {outlier.expected:.2f}: robust z = {outlier.z:+.1f}",
        statistic=f"robust z of {_STATISTICS[outlier.statistic]}",
        value=outlier.z,
        location=Location(tensor=outlier.module.name),
        population=population,
    )
