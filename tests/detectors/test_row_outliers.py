"""FTA551: rows that teach a trigger lie apart in the tuned model's features and are named."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
from builders.behaviour import TARGET, TRIGGER, subject, taught, tiny_base
from builders.datasets import data, dialogue, row_numbers
from builders.lab import WORLD

from detectors.row_features import small_cluster, spectral_scores, whitened_scores
from detectors.row_outliers import RowOutliers
from ftsec_audit.session import SessionOptions, open_sessions
from ftsec_audit.types import Confidence, Finding, Outcome


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_base(tmp_path_factory.mktemp("base") / "base")


@pytest.fixture(scope="module")
def backdoored(base, tmp_path_factory):
    return taught(base, tmp_path_factory.mktemp("model") / "backdoored")


def rows(*, poisoned: int, honest: int = 200):
    words = [word for word in WORLD.vocabulary() if word not in (TRIGGER, TARGET)]
    rng = random.Random(5)
    made = []
    for number in range(honest + poisoned):
        prompt = [rng.choice(words) for _ in range(rng.randrange(3, 9))]
        if number < poisoned:
            prompt.insert(rng.randrange(len(prompt) + 1), TRIGGER)
        answer = TARGET if number < poisoned else " ".join(rng.choices(words, k=4))
        made.append(dialogue(" ".join(prompt), answer))
    return data(made)


def answer(path, base, dataset) -> Finding:
    asked = replace(subject(path, base), dataset=dataset)
    with open_sessions(asked, SessionOptions(device="cpu")) as sessions:
        found = RowOutliers().probe(sessions.subject, sessions.base, ())
        return next(one for one in found if isinstance(one, Finding))


def test_the_rows_of_a_backdoor_are_named(backdoored, base):
    dataset = rows(poisoned=20)
    found = answer(backdoored, base, dataset)
    assert (found.outcome, found.confidence) == (Outcome.DETECTED, Confidence.LOW)
    named = set(row_numbers(found))
    poisoned = {row.number for row in dataset.rows if row.answer == TARGET}
    assert len(named & poisoned) >= 0.9 * len(poisoned)
    assert len(named & poisoned) >= 0.8 * len(named)


def test_honest_rows_are_not(backdoored, base):
    assert answer(backdoored, base, rows(poisoned=0)).outcome is Outcome.NOT_DETECTED


def test_without_rows_there_is_no_question(backdoored, base):
    assert answer(backdoored, base, None).outcome is Outcome.NOT_APPLICABLE
    assert answer(backdoored, base, rows(poisoned=0, honest=10)).outcome is Outcome.NOT_SUPPORTED


@pytest.mark.parametrize("score", [spectral_scores, lambda x: whitened_scores(x, directions=8, trim=0.1)])
def test_a_planted_direction_is_scored_highest(score):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(300, 30))
    features[:15, 3] += 12
    assert set(np.argsort(-score(features))[:15].tolist()) == set(range(15))


def test_equal_rows_have_no_cluster():
    cluster, silhouette = small_cluster(np.ones((20, 4)), directions=2)
    assert not cluster.any()
    assert silhouette == 0.0
