"""From records to one number per sample and question. None is an abstention: it was asked, not answered.

Scores that are fitted are always of samples the fit has not seen: a whole group (recipe, attack or base, with
its twins and disguises) is left out, the rest is fitted, the group is scored.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from detectors.score_features import FIVE, RESPONSES
from detectors.spectral_signature import SPECTRAL_OUTLIER
from ftsec_audit.fusion import suspicion
from ftsec_audit.types import Outcome, Verdict
from ftsec_audit.validate import peer
from ftsec_audit.validate.lab_bank import judged_by_fold
from ftsec_audit.validate.population import Labelled
from ftsec_audit.validate.records import Record

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Matrix = NDArray[np.float64]

Scores = Mapping[str, float | None]
"""Sample key → score, larger is stranger; None where there is no answer."""

NOT_FITTED = "not fitted"
BY_RECIPE = "leave one recipe out"
GROUPINGS: Mapping[str, Callable[[Labelled], str]] = {
    BY_RECIPE: lambda sample: sample.recipe,
    "leave one attack out": lambda sample: sample.attack,
    "leave one base out": lambda sample: sample.base_name,
    "in recipe": lambda sample: sample.job,
}
"""How a score was fitted → what was left out with the sample; at last only its twin and their disguises."""


@dataclass(frozen=True, kw_only=True)
class Scored:
    """One way to score a population, and its scores."""

    name: str
    fitted: str
    """`NOT_FITTED`, or a key of `GROUPINGS`."""
    scores: Scores

    @property
    def group(self) -> Callable[[Labelled], str]:
        """What a threshold for a sample must not have seen."""
        return GROUPINGS.get(self.fitted, GROUPINGS[BY_RECIPE])


def every_score(records: Sequence[Record]) -> list[Scored]:
    """All there is: the verdict, the fused numbers, every rule, what rules rest on, and the fitted scores."""
    return [*_unfitted(records), *_own_bank(records), *_fitted(records)]


def rule_scores(records: Sequence[Record], rule: str) -> Scores:
    """1 − p where the rule gave a p-value; else 1 for a detection and 0 for none or not applicable."""

    def score(one: Record) -> float | None:
        findings = [finding for finding in one.findings if finding.rule == rule]
        if not findings or any(not finding.outcome.is_answer for finding in findings):
            return None
        return max(
            float(f.outcome is Outcome.DETECTED) if f.p_value is None else 1.0 - f.p_value for f in findings
        )

    return _each(records, score)


def _unfitted(records: Sequence[Record]) -> Iterator[Scored]:
    numbers = sorted({name for one in records for name in one.statistics if name not in FIVE})
    for name, score in (
        ("verdict FAIL", _failed),
        ("suspicion", _suspicion),
        ("strongest finding", _strongest),
    ):
        yield Scored(name=name, fitted=NOT_FITTED, scores=_each(records, score))
    for rule in sorted({finding.rule for one in records for finding in one.findings}):
        yield Scored(name=rule, fitted=NOT_FITTED, scores=rule_scores(records, rule))
    for name in numbers:
        scores = _each(records, lambda one, name=name: one.statistics.get(name))  # type: ignore[misc]
        yield Scored(name=name, fitted=NOT_FITTED, scores=scores)
    if any(one.peer for one in records):
        scores = _each(records, lambda one: peer.ACTIONS.get(one.peer))
        yield Scored(name="adaptersentry", fitted=NOT_FITTED, scores=scores)


def _own_bank(records: Sequence[Record]) -> Iterator[Scored]:
    """FTA201 by the benign samples of other recipes, and the fused numbers with that answer."""
    # Forty fits for every sample: the recipe is the group that matters most, and the only one done.
    for fitted, group in ((f, g) for f, g in _groupings(records) if f == BY_RECIPE):
        judged = list(judged_by_fold(records, group).values())
        rule = rule_scores(judged, SPECTRAL_OUTLIER.id)
        yield Scored(name=f"{SPECTRAL_OUTLIER.id}, own bank", fitted=fitted, scores=rule)
        for name, score in (("suspicion", _suspicion), ("strongest finding", _strongest)):
            yield Scored(name=f"{name}, own bank", fitted=fitted, scores=_each(judged, score))


def _failed(one: Record) -> float | None:
    """The point at which a gate operates; an inconclusive verdict stops a deployment but accuses nobody."""
    return float(one.verdict is Verdict.FAIL)


def _suspicion(one: Record) -> float | None:
    """1 − the fused p-value; 0 where rules answered and none of them had one."""
    return suspicion(one.findings).total or 0.0


def _strongest(one: Record) -> float | None:
    """Severity, then confidence, of the gravest detection; suspicion, below 1, orders the rest."""
    gravest = max(
        (
            10.0 * finding.severity.level + finding.confidence.level
            for finding in one.findings
            if finding.outcome is Outcome.DETECTED
        ),
        default=0.0,
    )
    return gravest + (_suspicion(one) or 0.0)


def _each(records: Iterable[Record], score: Callable[[Record], float | None]) -> Scores:
    return {one.sample.key: score(one) if one.is_scanned else None for one in records}


def _groupings(records: Sequence[Record]) -> Iterator[tuple[str, Callable[[Labelled], str]]]:
    for fitted, group in GROUPINGS.items():
        if len({group(one.sample) for one in records}) > 1:
            yield fitted, group


def _fitted(records: Sequence[Record]) -> Iterator[Scored]:
    features = {one.sample.key: one.features for one in records}
    five = {one.sample.key: _five(one) for one in records}
    responses = {one.sample.key: _responses(one) for one in records}
    both = {key: found | dict(features[key]) if features[key] else {} for key, found in responses.items()}
    samples = [one.sample for one in records]
    for fitted, group in _groupings(records):
        for name, table, score in (
            ("five statistics, logistic", five, _logistic),
            ("token responses, logistic", responses, _logistic),
            ("token responses and spectra, logistic", both, _logistic),
            ("all spectral features, logistic", features, _logistic),
            ("all spectral features, distance to benign", features, _distance),
        ):
            yield Scored(name=name, fitted=fitted, scores=held_out(samples, table, group, score))


def _responses(one: Record) -> dict[str, float]:
    """How far the most answered token stands out; known of adapters and checkpoints alike."""
    return {name: one.statistics[name] for name in RESPONSES if name in one.statistics}


def _five(one: Record) -> dict[str, float]:
    return {name: one.statistics[name] for name in FIVE if name in one.statistics}


def held_out(
    samples: Sequence[Labelled],
    table: Mapping[str, Mapping[str, float]],
    group: Callable[[Labelled], str],
    score: Callable[[Matrix, Sequence[bool], Matrix], Sequence[float]],
) -> Scores:
    """Every sample scored by a fit that has seen nothing of its group; None without features.

    Columns are those that every sample with features has. A fit needs both labels.
    """
    import numpy as np

    known = [sample for sample in samples if table.get(sample.key)]
    scores: dict[str, float | None] = {sample.key: None for sample in samples}
    if not known:
        return scores
    columns = sorted(set.intersection(*(set(table[sample.key]) for sample in known)))
    X = np.array([[table[s.key][c] for c in columns] for s in known])  # (n, p)
    groups, y = [group(sample) for sample in known], [sample.poisoned for sample in known]
    for left_out in dict.fromkeys(groups):
        inside = np.array([g == left_out for g in groups])
        labels = [label for label, out in zip(y, inside, strict=True) if not out]
        if len(set(labels)) == 2 and columns:
            values = score(X[~inside], labels, X[inside])
            keys = [sample.key for sample, out in zip(known, inside, strict=True) if out]
            scores.update(dict(zip(keys, map(float, values), strict=True)))
    return scores


def _logistic(X: Matrix, y: Sequence[bool], points: Matrix) -> Sequence[float]:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, class_weight="balanced", max_iter=2000))
    model.fit(X, list(y))
    return [float(value) for value in model.decision_function(points)]


def _distance(X: Matrix, y: Sequence[bool], points: Matrix) -> Sequence[float]:
    """Mahalanobis distance from the benign samples alone: no bad sample is needed to fit it."""
    import numpy as np

    from ftsec_audit.calibration.conformal import mahalanobis

    benign = X[~np.array(y)]
    values = mahalanobis(benign, points)
    return [float(v) if math.isfinite(v) else math.inf for v in values]
