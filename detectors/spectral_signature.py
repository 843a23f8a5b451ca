"""FTA201 spectral-outlier: is the spectrum of the update unlike that of benign adapters made alike?

**Why an attacker causes it.** A backdoor teaches one sharp association on top of whatever else is
trained. It can show as energy in few directions, few modules or few layers, or as an update larger
than the task needs.

**Statistic.** For every adapted module, from the exact factored spectrum σ₁ ≥ σ₂ ≥ … of ΔW = s·BA:
log σ₁/|s|; log RMS = log ‖ΔW‖_F/(|s|√(d_out·d_in)); σ₁/Σσ; entropy of σ²/Σσ² over ln r; log stable rank
‖ΔW‖²_F/σ₁²; effective rank over r; log σ₁/σ₂; log kurtosis of the entries; the cosine of the top
residual-side vector with that of the next layer (the last two where they were measured: they cost more
than the spectrum and come with FTA202 in the standard profile). Averaged per module type and third
of the depth, with the share of the energy in each cell, its Gini coefficient over layers, and the spread
of log RMS over modules. Only ΔW is used, so neither the split into B and A nor a re-scaled α is a signal.
The artifact's vector is scored twice against a stratum of benign ones (same rank bucket and method; same
family, target set and objective where there are enough): Mahalanobis distance with Ledoit–Wolf shrinkage
and distance to the k nearest. Each gives a full-conformal p-value in which repositories are the unit, the
two are fused by the Cauchy combination, and doubled for every step by which the stratum had to be widened.

**Sources.** Spectral statistics of poisoned adapters: arXiv:2602.15195 (97–100 % within one recipe);
their collapse across recipes: arXiv:2604.08844. Hence a population and no absolute threshold: ordinary
adapters are themselves close to rank one. Hierarchical conformal prediction: arXiv:2306.06342.

**False positives.** An honest adapter of an unusual recipe: rare learning rate, very long or very short
training, a data set unlike any in the bank. Therefore never more than a suspicion: confidence is at most
MEDIUM, and LOW ("uncalibrated") with fewer than `enough` comparable repositories; then only an artifact
far outside everything seen is reported.

**Evasions.** Training against the statistic (norm-matched, flattened spectra); a poison spread as widely as
the task; hiding in a recipe for which no population exists.

**Cost.** One QR and an r×r SVD per module: O((d_out + d_in)·r²) FLOPs, the adapter's bytes read once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from detectors.spectral_features import artifact_features
from ftsec_audit.artifact import ArtifactKind
from ftsec_audit.calibration.fusion import cauchy_combination
from ftsec_audit.calibration.recipe import Recipe
from ftsec_audit.contracts import Measurements, Subject, WeightDetector
from ftsec_audit.types import Confidence, Evidence, Finding, Population, Rule, Severity

if TYPE_CHECKING:
    from ftsec_audit.calibration.bank import Bank, Calibration
    from ftsec_audit.calibration.conformal import Matrix, Scores
    from ftsec_audit.weights.delta import Delta

SPECTRAL_OUTLIER = Rule(
    id="FTA201",
    name="spectral-outlier",
    question="Is the spectrum of the update unlike that of benign adapters of a comparable recipe?",
    severity=Severity.MEDIUM,
    remediation="Ask the publisher for the training data and recipe, and confirm with behavioural probes "
    "(`--profile deep`). A benign adapter of an unusual recipe can be added to a pack of your own with "
    "`ftsec-audit calibrate`.",
)


@dataclass(frozen=True, kw_only=True)
class SpectralSignature(WeightDetector):
    rules = (SPECTRAL_OUTLIER,)
    feature_set: ClassVar[str] = "spectral-signature/1"
    """Name of the feature vector in calibration packs; the number changes with the arithmetic."""

    significance: float = 0.01
    """Largest p-value that is reported where the population is large enough."""
    enough: int = 20
    """Repositories from which on a population counts as calibrated."""
    least: int = 5
    """Repositories below which there is nothing to compare with."""
    gross_z: float = 6.0
    """Robust z of the log distance from which on an artifact is reported without calibration.

    A convention, fitted to nothing: with so few repositories no quantile can be estimated. By the rule of
    three sigmas, doubled: the MAD of 5 to 19 values is itself off by a quarter to a half (1.17/√n).
    """
    neighbours: int = 5
    widening: float = 2.0
    """Factor on the p-value for every step by which the stratum was widened."""
    shown: int = 4
    """How many features are given as evidence."""

    def measure(self, delta: Delta) -> Mapping[str, float | list[float]]:
        """The spectrum and what else the features need; empty unless ΔW is low-rank, finite and not zero."""
        from ftsec_audit.weights.delta import DeltaKind

        if delta.kind is DeltaKind.IDENTICAL or (delta.change and delta.finite() and delta.is_zero()):
            return {"is_unchanged": 1.0}
        if delta.kind is not DeltaKind.LOW_RANK or not delta.finite():
            return {}
        return {
            "singular_values": delta.singular_values().tolist(),
            "scale": delta.scale,
            "n_layers": float(delta.n_layers),
        }

    def features(self, table: Measurements) -> dict[str, float]:
        """The artifact's feature vector; empty where nothing low-rank was measured."""
        return artifact_features(table.modules)

    def judge(self, table: Measurements, calibration: Calibration) -> Iterator[Finding]:
        features = self.features(table)
        if not features:
            yield _without_spectrum(table)
            return
        yield self.answer(features, Recipe.of(table), calibration, table.subject)

    def answer(
        self,
        features: Mapping[str, float],
        recipe: Recipe,
        calibration: Calibration,
        subject: Subject | None = None,
    ) -> Finding:
        """The answer for a feature vector; `subject` tells copies of itself in the bank."""
        bank = calibration.population(self.feature_set, recipe, features, subject=subject, enough=self.enough)
        if bank is None or bank.n_groups < self.least:
            wanted = next(iter(recipe.strata())).label
            return SPECTRAL_OUTLIER.not_supported(
                f"no comparable benign population for {wanted}: {bank.n_groups if bank else 0} repositories "
                f"in {calibration.id}, at least {self.least} needed"
            )
        return self.compare(features, bank)

    def compare(self, features: Mapping[str, float], bank: Bank) -> Finding:
        """The answer for a feature vector that has every column of the bank."""
        import numpy as np

        from ftsec_audit.calibration import conformal

        p_value: float | None = None
        rows, subject = bank.matrix(), np.array([features[key] for key in bank.columns])
        nearest = partial(conformal.nearest_neighbours, k=self.neighbours)
        scores = {
            "Mahalanobis distance": conformal.conformal_scores(
                rows, subject, bank.groups, conformal.mahalanobis
            ),
            f"distance to the {self.neighbours} nearest": conformal.conformal_scores(
                rows, subject, bank.groups, nearest
            ),
        }
        evidence = [_distance(name, score, bank) for name, score in scores.items()]
        against = f"against {bank.n} benign adapters of {bank.n_groups} repositories, {bank.stratum.label}"
        if bank.n_groups < self.enough:
            gross = min(_log_robust_z(score) for score in scores.values())
            summary = f"uncalibrated: distances reach robust z = {gross:.1f} {against}"
            unusual, confidence = gross >= self.gross_z, Confidence.LOW
        else:
            fused = cauchy_combination([score.p_value() for score in scores.values()])
            p_value = conformal.widened(fused, bank.stratum.level, factor=self.widening)
            summary = f"p = {p_value:.2g} {against}"
            unusual, confidence = p_value <= self.significance, Confidence.MEDIUM
        if not unusual:
            return SPECTRAL_OUTLIER.not_detected(
                summary, confidence=confidence, evidence=evidence, p_value=p_value
            )
        evidence += _strangest(rows, subject, bank, self.shown)
        return SPECTRAL_OUTLIER.detected(summary, confidence=confidence, evidence=evidence, p_value=p_value)


def _without_spectrum(table: Measurements) -> Finding:
    """The answer where nothing low-rank was measured."""
    artifact = table.subject.artifact
    if artifact.kind is ArtifactKind.FILES:
        return SPECTRAL_OUTLIER.not_applicable("no model weights were recognised")
    unchanged = bool(table.modules) and all(m.values.get("is_unchanged") for m in table.modules)
    if artifact.adapter is None:
        if unchanged:
            return SPECTRAL_OUTLIER.not_detected("no tensor differs from the base")
        return SPECTRAL_OUTLIER.not_supported(
            "there is no benign population of full checkpoints to compare with"
        )
    if unchanged:
        return SPECTRAL_OUTLIER.not_detected("every update is zero")
    return SPECTRAL_OUTLIER.not_supported(
        f"no finite low-rank update was found (method {artifact.adapter.method or 'unknown'})"
    )


def _distance(name: str, score: Scores, bank: Bank) -> Evidence:
    low, high = score.band()
    return Evidence(
        message=f"{name} {score.subject:.2f}; benign 5–95 %: {low:.2f} to {high:.2f}; "
        f"p = {score.p_value():.2g}, n = {bank.n} adapters of {bank.n_groups} repositories",
        statistic=name,
        value=score.subject,
        population=_population(bank, score.quantile(), (low, high)),
        details={"p_value": score.p_value(), "widened": bank.stratum.level},
    )


def _population(bank: Bank, quantile: float, band: tuple[float, float]) -> Population:
    return Population(id=bank.id, stratum=bank.label, n=bank.n, quantile=quantile, band=band)


def _log_robust_z(score: Scores) -> float:
    """How far the subject lies beyond the bank's own scores: (log s − median)/MADN of log scores."""
    import numpy as np

    logs = np.log(np.maximum(score.bank, 1e-12))
    median = np.median(logs)
    spread = max(1.4826 * float(np.median(np.abs(logs - median))), 1e-3)
    return float((math.log(max(score.subject, 1e-12)) - median) / spread)


def _strangest(rows: Matrix, subject: Matrix, bank: Bank, count: int) -> list[Evidence]:
    """The features furthest from the bank's median in units of its own spread."""
    import numpy as np

    median = np.median(rows, axis=0)
    spread = np.maximum(1.4826 * np.median(np.abs(rows - median), axis=0), 1e-6)
    z = (subject - median) / spread
    return [
        _feature(bank, i, rows[:, i], float(subject[i]), float(z[i])) for i in np.argsort(-np.abs(z))[:count]
    ]


def _feature(bank: Bank, column: int, values: Matrix, value: float, z: float) -> Evidence:
    import numpy as np

    low, high = (float(q) for q in np.quantile(values, [0.05, 0.95]))
    name = bank.columns[column]
    return Evidence(
        message=f"{name} = {value:.3g}, benign 5–95 %: {low:.3g} to {high:.3g} (robust z = {z:+.1f})",
        statistic=name,
        value=value,
        population=_population(bank, float((values < value).mean()), (low, high)),
    )
