"""Fitting a score to labelled samples, and what it is worth on recipes and attacks it has not seen.

Which features and how much regularisation is *chosen* by the area over left-out recipes. What is *reported*
comes from samples that neither a fit nor a choice has seen anything of: their whole recipe (or attack) is
taken out first, and everything else, the choice included, is done on the rest (nested cross-validation,
Cawley and Talbot 2010).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from detectors.score_features import FIVE, RESPONSES
from ftsec_audit.calibration.learned import LearnedScore, Member, Performance
from ftsec_audit.errors import UsageError
from ftsec_audit.validate import curves
from ftsec_audit.validate.cells import FALSE_POSITIVE_RATE
from ftsec_audit.validate.linear_graph import linear_graph
from ftsec_audit.validate.population import NO_TRAINING
from ftsec_audit.validate.records import Record

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Matrix = NDArray[np.float64]

STRENGTHS = (0.01, 0.1, 1.0, 10.0)
"""Inverse strengths of the penalty, C of scikit-learn."""
_DIGITS = 6

GROUPS: Mapping[str, Callable[[Record], str]] = {
    "recipe": lambda one: one.sample.recipe,
    "attack": lambda one: one.sample.attack,
}


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One way to fit: which features, and how strongly they are held back."""

    features: str
    columns: tuple[str, ...]
    strength: float

    @property
    def label(self) -> str:
        return f"{self.features}, logistic regression with C = {self.strength:g}"


def learn(records: Sequence[Record], *, name: str, version: str, digest: str) -> LearnedScore:
    """The score that is chosen on all of these records, with what nested leave-one-out says of such scores.

    Used are updates that were trained and that have all features; `digest` is that of the records. Raises
    UsageError where there are not three recipes with samples of both labels.
    """
    used = [one for one in records if one.is_scanned and one.sample.recipe != NO_TRAINING and _features(one)]
    choices = list(_choices(used))
    used = [one for one in used if all(c in _features(one) for choice in choices for c in choice.columns)]
    both = [recipe for recipe in _names(used, "recipe") if _has_both(used, recipe)]
    if len(both) < 3:
        raise UsageError(
            f"{len(both)} recipes have trained known-bad and benign samples with all features, three are "
            "needed",
            hint="records of `ftsec-audit validate` on a zoo of more recipes",
        )
    held = {kind: held_out(used, kind, choices) for kind in GROUPS}
    chosen = select(used, choices)
    return LearnedScore(
        name=name,
        version=version,
        columns=chosen.columns,
        choice=chosen.label,
        records=digest,
        families=tuple(sorted({one.comparable.family for one in used if one.comparable})),
        bases=tuple(sorted({one.sample.base_name for one in used})),
        # Of a group without which the rest has one label only, nothing is known: all samples of one attack.
        performance=tuple(_performance(used, *one) for one in held.items() if all(_sides(used, one[1]))),
        members=tuple(_member(one, chosen, score) for one, score in zip(used, held["recipe"], strict=True)),
        graph=fit(used, chosen).graph(),
    )


def held_out(used: Sequence[Record], kind: str, choices: Sequence[Choice]) -> list[float]:
    """Every sample's score by a choice and a fit without its group; NaN where the rest has one label only."""
    return _by_fold(used, GROUPS[kind], lambda rest: fit(rest, select(rest, choices)))


def select(used: Sequence[Record], choices: Sequence[Choice]) -> Choice:
    """The choice with the largest area over left-out recipes; of equals the first, which is the simplest."""

    def area(choice: Choice) -> float:
        scores = _by_fold(used, GROUPS["recipe"], lambda rest: fit(rest, choice))
        found = _area(used, scores)
        return -1.0 if math.isnan(found) else found

    return max(choices, key=area)


@dataclass(frozen=True)
class Fit:
    """A logistic regression on the standardised columns of a choice."""

    choice: Choice
    mean: Matrix
    scale: Matrix
    model: Any
    """scikit-learn's."""

    def scores(self, records: Sequence[Record]) -> list[float]:
        standardised = (_matrix(records, self.choice) - self.mean) / self.scale
        found: list[float] = self.model.predict_proba(standardised)[:, 1].tolist()
        return found

    def graph(self) -> bytes:
        return linear_graph(self.mean, self.scale, self.model.coef_[0], float(self.model.intercept_[0]))


def fit(records: Sequence[Record], choice: Choice) -> Fit:
    """Both labels weigh the same, and so do all copies of one model together."""
    import numpy as np
    from sklearn import config_context
    from sklearn.linear_model import LogisticRegression

    X = _matrix(records, choice)  # (n, p)
    mean, spread = X.mean(axis=0), X.std(axis=0)
    scale = np.where(spread > 0.0, spread, 1.0)
    copies = Counter((one.sample.job, one.sample.poisoned) for one in records)
    weights = [1.0 / copies[one.sample.job, one.sample.poisoned] for one in records]
    model = LogisticRegression(C=choice.strength, class_weight="balanced", solver="newton-cholesky")
    with config_context(assume_finite=True, skip_parameter_validation=True):  # half of the time otherwise
        model.fit((X - mean) / scale, [one.sample.poisoned for one in records], np.array(weights))
    return Fit(choice, mean, scale, model)


def _by_fold(
    used: Sequence[Record], group: Callable[[Record], str], fitted: Callable[[Sequence[Record]], Fit]
) -> list[float]:
    scores = {one.sample.key: math.nan for one in used}
    for left_out in dict.fromkeys(map(group, used)):
        inside = [one for one in used if group(one) == left_out]
        rest = [one for one in used if group(one) != left_out]
        if len({one.sample.poisoned for one in rest}) == 2:
            found = fitted(rest).scores(inside)
            scores |= {one.sample.key: score for one, score in zip(inside, found, strict=True)}
    return [scores[one.sample.key] for one in used]


def _choices(used: Sequence[Record]) -> Iterator[Choice]:
    """From few features to many; spectral ones are those that all samples with a spectrum have."""
    vectors = [set(one.features) for one in used if one.features]
    spectral = tuple(sorted(set.intersection(*vectors))) if vectors else ()
    for features, columns in (
        ("token responses", RESPONSES),
        ("five statistics", FIVE),
        ("five statistics and token responses", FIVE + RESPONSES),
        ("spectral features", spectral),
        ("all features", FIVE + RESPONSES + spectral),
    ):
        for strength in STRENGTHS:
            yield Choice(features=features, columns=columns, strength=strength)


def _features(one: Record) -> dict[str, float]:
    known = {key: one.statistics[key] for key in FIVE + RESPONSES if key in one.statistics}
    return dict(one.features) | known


def _matrix(records: Sequence[Record], choice: Choice) -> Matrix:
    """(n, p)."""
    import numpy as np

    tables = [(one.statistics, one.features) for one in records]
    return np.array(
        [
            [known[column] if column in known else spectral[column] for column in choice.columns]
            for known, spectral in tables
        ]
    )


def _area(used: Sequence[Record], scores: Sequence[float]) -> float:
    return curves.auroc(*_sides(used, scores))


def _sides(used: Sequence[Record], scores: Sequence[float]) -> tuple[list[float], list[float]]:
    known = [(one.sample.poisoned, s) for one, s in zip(used, scores, strict=True) if not math.isnan(s)]
    return [s for poisoned, s in known if poisoned], [s for poisoned, s in known if not poisoned]


def _performance(used: Sequence[Record], kind: str, scores: Sequence[float]) -> Performance:
    bad, good = _sides(used, scores)
    known = [one for one, score in zip(used, scores, strict=True) if not math.isnan(score)]
    jobs = [[one.sample.job for one in known if one.sample.poisoned is label] for label in (True, False)]
    hits = [score > curves.threshold(good, FALSE_POSITIVE_RATE) for score in bad]
    return Performance(
        left_out=kind,
        groups=len(_names(used, kind)),
        auroc=_rounded(curves.auroc(bad, good)),
        auroc_interval=_pair(curves.auroc_interval(bad, good, clusters=(jobs[0], jobs[1]))),
        tpr=_rounded(sum(hits) / len(hits)),
        tpr_interval=_pair(curves.share_interval(hits, jobs[0])),
    )


def _member(one: Record, choice: Choice, score: float) -> Member:
    table = _features(one)
    return Member(
        job=one.sample.job,
        poisoned=one.sample.poisoned,
        score=_rounded(score),
        features=tuple(table[column] for column in choice.columns),
    )


def _names(used: Sequence[Record], kind: str) -> set[str]:
    return {GROUPS[kind](one) for one in used}


def _has_both(used: Sequence[Record], recipe: str) -> bool:
    return len({one.sample.poisoned for one in used if one.sample.recipe == recipe}) == 2


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")


def _pair(interval: curves.Interval) -> curves.Interval:
    return _rounded(interval[0]), _rounded(interval[1])
