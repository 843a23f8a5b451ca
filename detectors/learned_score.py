"""FTA209 learned-score: does a score that was fitted to known-bad and benign updates call this one bad?

**Why an attacker causes it.** Poison changes the update by which it is learnt: energy in fewer directions,
one token answered more than all others. No single number tells; a fitted combination may tell more.

**Statistic.** score = 1/(1 + exp(−(w·z + b))) with z the standardised features of the update: those of
arXiv:2602.15195 (means over modules of σ₁, ‖ΔW‖_F, σ₁²/Σσ², the entropy of σ²/Σσ² and the kurtosis of the
entries), of FTA304 (how far the most answered token stands out) and of FTA201, whichever was chosen. The
weights come as an ONNX graph, run by onnxruntime; the card beside it says on which samples they were fitted
and what the score is worth. p = (1 + benign jobs that score as high)/(jobs + 1), where every benign sample
has the score of a fit that had seen nothing of its recipe.

**What it is worth.** A finding quotes the card: the area over recipes, and over attacks, that neither the fit
nor the choice of features has seen. The shipped score, fitted on the lab's own small models, is little better
than chance, and the rule says so each time: LOW confidence, unless the lower end of the interval of that area
reaches `convincing`; no accusation at all where that interval holds ½. A score of your own, from samples
that you labelled: `ftsec-audit learn`, `scan --calibration SCORE.onnx`.

**Sources.** Logistic regression on spectral statistics: arXiv:2602.15195; its collapse across recipes:
arXiv:2604.08844. Hence nothing is said of an update whose base is of another family than those of the
population, or one of whose features lies beyond all of the population.

**False positives.** By construction up to `significance` of benign updates that are like those of the
population, and more of those that are not. A sample that it was fitted on is recognised and not judged.

**Evasions.** Training against the score; any feature moved out of the population's range, for instance by a
larger norm; recipes the population has none of; poison in a checkpoint, whose spectrum is not of low rank.

**Cost.** One product of a few numbers; what the features cost belongs to FTA201, FTA202 and FTA304.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ftsec_audit.artifact import ArtifactKind
from ftsec_audit.contracts import Measurements, WeightDetector
from ftsec_audit.types import Confidence, Evidence, Finding, Population, Profile, Rule, Severity

if TYPE_CHECKING:
    from ftsec_audit.calibration.bank import Calibration
    from ftsec_audit.calibration.learned import LearnedScore
    from ftsec_audit.weights.delta import Delta

LEARNED_SCORE = Rule(
    id="FTA209",
    name="learned-score",
    question="Does a score that was fitted to known-bad and benign updates call this one bad?",
    severity=Severity.LOW,
    remediation="A hint of where to look first, no evidence by itself: ask the model (`--profile deep`).",
)


@dataclass(frozen=True, kw_only=True)
class LearnedScoreRule(WeightDetector):
    """Judges by what other detectors measured; measures nothing itself."""

    rules = (LEARNED_SCORE,)
    profile = Profile.STANDARD

    significance: float = 0.02
    """Largest p-value that is reported: twice that of FTA201, for LOW confidence only."""
    convincing: float = 0.9
    """Lower end of the area over left-out recipes from which on confidence is MEDIUM: the project's goal."""

    def measure(self, delta: Delta) -> Mapping[str, float | list[float]]:
        return {}

    def judge(self, table: Measurements, calibration: Calibration) -> Iterator[Finding]:
        yield self._answer(table, calibration.learned)

    def _answer(self, table: Measurements, learned: LearnedScore | None) -> Finding:
        from detectors.score_features import score_features

        if table.subject.artifact.kind is ArtifactKind.FILES:
            return LEARNED_SCORE.not_applicable("no model weights were recognised")
        if learned is None:
            return LEARNED_SCORE.not_supported("no learned score is part of the calibration")
        features = score_features(table.modules)
        reason = _inapplicable(table, learned, features)
        return LEARNED_SCORE.not_applicable(reason) if reason else self.compare(features, learned)

    def compare(self, features: Mapping[str, float], learned: LearnedScore) -> Finding:
        """The answer for features that the score was made for."""
        score = learned.score(features)
        p_value = learned.p_value(score)
        low, _ = learned.left_out("recipe").auroc_interval
        evidence = [_score(score, p_value, learned), *_worth(learned)]
        summary = f"score {score:.2f}, p = {p_value:.2g} against {_population(learned)}; {_area(learned)}"
        if low <= 0.5:
            return LEARNED_SCORE.not_supported(
                f"{summary}: not better than chance, so that it accuses nobody"
            )
        confidence = Confidence.MEDIUM if low >= self.convincing else Confidence.LOW
        if p_value > self.significance:
            return LEARNED_SCORE.not_detected(
                summary, confidence=confidence, evidence=evidence, p_value=p_value
            )
        return LEARNED_SCORE.detected(summary, confidence=confidence, evidence=evidence, p_value=p_value)


def _inapplicable(table: Measurements, learned: LearnedScore, features: Mapping[str, float]) -> str:
    """Why the score says nothing of this update; empty where it does."""
    from ftsec_audit.calibration.recipe import Recipe

    if missing := learned.missing(features):
        return (
            f"not measured (FTA201, FTA202, FTA304 do): {', '.join(missing[:3])}{' …' if missing[3:] else ''}"
        )
    family = Recipe.of(table).family
    if family not in learned.families:
        known = f"{', '.join(learned.families)} ({', '.join(learned.bases)})"
        return f"{learned.id} was fitted on updates of {known}, not of {family or 'an unknown base'}"
    if learned.is_member(features):
        return f"this is one of the samples that {learned.id} was fitted on, or a copy of one"
    if beyond := learned.outside(features):
        column, value, least, most = beyond[0]
        return (
            f"outside the population of {learned.id}: {column} = {value:.3g}, there {least:.3g} to {most:.3g}"
            + (f", and {len(beyond) - 1} more features" if beyond[1:] else "")
        )
    return ""


def _population(learned: LearnedScore) -> str:
    return (
        f"{len(learned.benign)} benign updates ({learned.benign_jobs} models) of {', '.join(learned.bases)}"
    )


def _area(learned: LearnedScore) -> str:
    one = learned.left_out("recipe")
    low, high = one.auroc_interval
    return f"AUROC {one.auroc:.2f} [{low:.2f}, {high:.2f}] over left-out recipes"


def _score(score: float, p_value: float, learned: LearnedScore) -> Evidence:
    below = sum(member.score < score for member in learned.benign) / len(learned.benign)
    return Evidence(
        message=f"score {score:.3f} by {learned.id} ({learned.choice}); p = {p_value:.2g} against "
        f"{_population(learned)}, each scored without its own recipe",
        statistic="learned score",
        value=score,
        population=Population(
            id=learned.id, stratum=" · ".join(learned.families), n=len(learned.benign), quantile=below
        ),
        details={"p_value": p_value, "bases": list(learned.bases), "records": learned.records},
    )


def _worth(learned: LearnedScore) -> Iterator[Evidence]:
    """What the score is worth on what it has not seen."""
    for one in learned.performance:
        low, high = one.auroc_interval
        least, most = one.tpr_interval
        yield Evidence(
            message=f"leave one {one.left_out} out ({one.groups}): AUROC {one.auroc:.2f} [{low:.2f}, "
            f"{high:.2f}], TPR at 1 % false positives {one.tpr:.2f} [{least:.2f}, {most:.2f}]; "
            f"{learned.bad} known-bad, {len(learned.benign)} benign updates",
            statistic=f"AUROC, leave one {one.left_out} out",
            value=one.auroc,
            interval=one.auroc_interval,
        )
