"""FTA209: says p and what the score is worth, hints at most, and knows of whom it can say nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from builders.adapters import write_adapter
from builders.audits import finding, subject
from calibration.test_learned import SCORE

from detectors.learned_score import LearnedScoreRule
from detectors.module_outlier import ModuleOutlier
from detectors.score_features import FIVE, score_features
from detectors.spectral_signature import SpectralSignature
from ftsec_audit import runner
from ftsec_audit.calibration.bank import Calibration
from ftsec_audit.calibration.learned import Member
from ftsec_audit.types import Confidence, Outcome, Profile
from ftsec_audit.validate.linear_graph import linear_graph
from ftsec_audit.weights.stream import deltas

DETECTORS = (SpectralSignature(), ModuleOutlier(), LearnedScoreRule())


def audited(path, learned, detectors=DETECTORS):
    calibration = Calibration(packs=(), learned=learned)
    return runner.run(subject(path), detectors, calibration, profile=Profile.DEEP, stream=deltas)


def judged(path, learned, detectors=DETECTORS):
    return finding(audited(path, learned, detectors), "FTA209")


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    return write_adapter(
        tmp_path_factory.mktemp("learned") / "a", base_model_name_or_path="someone/Llama-nano"
    )


@pytest.fixture(scope="module")
def features(adapter):
    return score_features(audited(adapter, None).measurements)


def fitted(
    features, *, side: float, jobs: int = 99, area=(0.55, 0.7), families=("llama",), spread: float = 0.5
):
    """A score of the five statistics that is `side` for this adapter, among benign models around it."""
    centre = np.array([features[column] for column in FIVE])
    rng = np.random.default_rng(0)
    low, high = area
    return replace(
        SCORE,
        columns=FIVE,
        families=families,
        performance=tuple(replace(one, auroc_interval=(low, high)) for one in SCORE.performance),
        members=tuple(
            Member(
                job=str(job),
                poisoned=False,
                score=0.3 + 0.4 * job / jobs,
                features=tuple((centre * (1 + spread * rng.uniform(-1, 1, 5))).tolist()),
            )
            for job in range(jobs)
        ),
        graph=linear_graph(centre, np.ones(5), np.zeros(5), side),
    )


def test_a_high_score_is_a_low_hint_that_says_what_it_is_worth(adapter, features):
    found = judged(adapter, fitted(features, side=4.0))
    assert (found.outcome, found.confidence) == (Outcome.DETECTED, Confidence.LOW)
    assert found.p_value == pytest.approx(0.01)
    assert "99 models" in found.summary
    assert "[0.55, 0.70] over left-out recipes" in found.summary
    assert found.evidence[0].population.n == 99
    assert [one.interval for one in found.evidence[1:]] == [(0.55, 0.7)] * 2


def test_an_ordinary_score_accuses_nobody_and_gives_its_p_value(adapter, features):
    found = judged(adapter, fitted(features, side=0.0))
    assert found.outcome is Outcome.NOT_DETECTED
    assert found.p_value == pytest.approx(0.5, abs=0.02)


def test_few_models_cannot_accuse(adapter, features):
    found = judged(adapter, fitted(features, side=9.0, jobs=30))
    assert (found.outcome, found.p_value) == (Outcome.NOT_DETECTED, pytest.approx(1 / 31))


def test_confidence_follows_what_the_card_states(adapter, features):
    assert judged(adapter, fitted(features, side=4.0, area=(0.92, 0.99))).confidence is Confidence.MEDIUM
    chance = judged(adapter, fitted(features, side=4.0, area=(0.45, 0.7)))
    assert chance.outcome is Outcome.NOT_SUPPORTED
    assert "not better than chance" in chance.summary


def test_a_base_of_another_family_is_not_judged(adapter, features):
    found = judged(adapter, fitted(features, side=4.0, families=("gpt2",)))
    assert found.outcome is Outcome.NOT_APPLICABLE
    assert "not of llama" in found.summary


def test_what_lies_outside_the_population_is_not_judged(adapter, features):
    far = {column: value * 3 for column, value in features.items()}
    found = judged(adapter, fitted(far, side=4.0, spread=0.1))
    assert found.outcome is Outcome.NOT_APPLICABLE
    assert "outside the population of ours@3: five.sigma1" in found.summary


def test_a_sample_it_was_fitted_on_is_not_judged(adapter, features):
    learned = fitted(features, side=4.0)
    own = replace(learned.members[0], features=tuple(features[column] for column in FIVE))
    found = judged(adapter, replace(learned, members=(*learned.members, own)))
    assert found.outcome is Outcome.NOT_APPLICABLE
    assert "fitted on" in found.summary


def test_without_its_features_or_a_score_it_says_so(adapter, features):
    alone = judged(adapter, fitted(features, side=4.0), [LearnedScoreRule()])
    assert alone.outcome is Outcome.NOT_APPLICABLE
    assert "five.sigma1" in alone.summary
    assert judged(adapter, None).outcome is Outcome.NOT_SUPPORTED
