"""A fitted score: what it says survives its export, and what is said of it holds on what it has not seen."""

from __future__ import annotations

from dataclasses import replace
from statistics import fmean

import numpy as np
import onnxruntime
import pytest
from builders.labelled import labelled

from detectors.score_features import FIVE, RESPONSES
from ftsec_audit.errors import UsageError
from ftsec_audit.validate import curves, learn
from ftsec_audit.validate.learn import Choice
from ftsec_audit.validate.population import NO_TRAINING

EIGHT = Choice(features="both", columns=FIVE + RESPONSES, strength=1.0)
CHOICES = [EIGHT, Choice(features="responses", columns=RESPONSES, strength=1.0)]


def telling(poisoned, recipe, rng):
    return rng.normal() + (3.0 if poisoned else 0.0)


def silent(poisoned, recipe, rng):
    return rng.normal()


def in_recipe_only(poisoned, recipe, rng):
    """Tells perfectly within a recipe, and the other way round in the next."""
    return rng.normal(scale=0.1) + (1.0 if poisoned == bool(recipe % 2) else -1.0)


def area(records, kind="recipe", choices=CHOICES):
    scores = learn.held_out(records, kind, choices)
    bad = [s for one, s in zip(records, scores, strict=True) if one.sample.poisoned]
    return curves.auroc(bad, [s for one, s in zip(records, scores, strict=True) if not one.sample.poisoned])


def test_onnxruntime_gives_what_scikit_learn_gives():
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    records = labelled(telling)
    X = np.array([[one.statistics[c] for c in EIGHT.columns] for one in records])
    y = [one.sample.poisoned for one in records]
    theirs = make_pipeline(
        StandardScaler(), LogisticRegression(C=1.0, class_weight="balanced", solver="newton-cholesky")
    ).fit(X, y)
    session = onnxruntime.InferenceSession(learn.fit(records, EIGHT).graph())
    (ours,) = session.run(["score"], {"features": X})
    np.testing.assert_allclose(ours[:, 0], theirs.predict_proba(X)[:, 1], atol=1e-9)


def test_a_number_that_tells_everywhere_is_found():
    assert area(labelled(telling)) > 0.9
    assert area(labelled(telling), "attack") > 0.9


@pytest.mark.parametrize("signal", [telling, silent], ids=["numbers that would tell", "noise"])
def test_labels_by_chance_give_chance(signal):
    areas = [area(labelled(signal, shuffled=True, seed=seed)) for seed in range(4)]
    assert 0.35 < fmean(areas) < 0.6, areas  # left-out folds of noise lean below ½


def test_what_tells_within_a_recipe_only_is_worth_nothing():
    records = labelled(in_recipe_only)
    alone = Choice(features="σ₁", columns=FIVE[:1], strength=1.0)
    first = [one for one in records if one.sample.recipe == "recipe 0"]
    inside = learn.fit(first, alone).scores(first)
    assert curves.auroc(inside[::2], inside[1::2]) == 1.0
    assert area(records, choices=[alone]) < 0.5


def test_copies_of_one_model_weigh_as_much_as_one():
    records = labelled(telling)
    copied = [*records, *([replace(records[0], sample=replace(records[0].sample, key="copy"))] * 7)]
    first, second = (learn.fit(some, EIGHT) for some in (records, copied))
    # The scaler sees the copies, the regression does not count them: nearly the same order.
    assert np.corrcoef(first.scores(records), second.scores(records))[0, 1] > 0.999


def test_the_card_holds_what_was_used_and_what_it_is_worth():
    records = labelled(telling, recipes=4, jobs=4)
    untrained = replace(records[0], sample=replace(records[0].sample, key="edit", recipe=NO_TRAINING))
    featureless = replace(records[1], features={}, statistics={})
    score = learn.learn([*records, untrained, featureless], name="n", version="1", digest="d")
    assert (score.bad, len(score.benign), score.benign_jobs) == (16, 16, 16)
    assert (score.families, score.bases, score.records) == (("llama",), ("some-llama",), "d")
    assert {one.left_out: one.groups for one in score.performance} == {"recipe": 4, "attack": 3}
    assert score.left_out("recipe").auroc > 0.8
    held = [m.score for m in score.members]
    assert held != pytest.approx(
        [score.score(dict(zip(score.columns, m.features, strict=True))) for m in score.members]
    )


def test_without_its_only_attack_nothing_is_known():
    score = learn.learn(labelled(telling, recipes=3, jobs=1), name="n", version="1", digest="d")
    assert [one.left_out for one in score.performance] == ["recipe"]


def test_too_few_recipes_are_refused():
    with pytest.raises(UsageError, match="2 recipes"):
        learn.learn(labelled(telling, recipes=2, jobs=2), name="n", version="1", digest="")
