"""Scores that are fitted have not seen what they score, and an open question is an abstention."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from builders.reports import passing

from ftsec_audit.types import Confidence, Finding, Outcome, Severity
from ftsec_audit.validate.examine import Examined
from ftsec_audit.validate.population import Labelled
from ftsec_audit.validate.scorers import held_out, rule_scores


def sample(key: str, *, poisoned: bool, recipe: str = "r") -> Labelled:
    return Labelled(
        key=key,
        folder=Path("/nowhere"),
        base=Path("/nowhere"),
        base_name="lab-llama-nano",
        attack="token-backdoor",
        poisoned=poisoned,
        recipe=recipe,
        stealth=(),
        seed=0,
        trigger=(),
        expected_rules=(),
    )


def answer(outcome: Outcome, p_value: float | None = None) -> Finding:
    return Finding(
        rule="FTA999",
        outcome=outcome,
        severity=Severity.HIGH,
        confidence=Confidence.HIGH,
        summary="",
        p_value=p_value,
    )


@pytest.mark.parametrize(
    ("findings", "score"),
    [
        ([answer(Outcome.DETECTED)], 1.0),
        ([answer(Outcome.NOT_DETECTED)], 0.0),
        ([answer(Outcome.NOT_APPLICABLE)], 0.0),
        ([answer(Outcome.NOT_DETECTED, 0.25)], 0.75),
        ([answer(Outcome.NOT_SUPPORTED)], None),
        ([answer(Outcome.ERROR)], None),
        ([], None),
    ],
)
def test_the_score_of_a_rule(findings, score):
    examined = [
        Examined(sample=sample("a", poisoned=True), report=replace(passing(), findings=tuple(findings)))
    ]
    assert rule_scores(examined, "FTA999") == {"a": score}


def test_a_sample_that_could_not_be_scanned_has_no_score():
    examined = [Examined(sample=sample("a", poisoned=True), report=None, error="x")]
    assert rule_scores(examined, "FTA999") == {"a": None}


def test_a_group_is_scored_by_a_fit_that_has_not_seen_it():
    samples = [
        sample(f"{recipe}{i}", poisoned=i % 2 == 0, recipe=recipe) for recipe in "abc" for i in range(4)
    ]
    table = {one.key: {"x": float(number)} for number, one in enumerate(samples)}
    seen = []

    def score(X, y, points):
        seen.append((set(X[:, 0]), set(points[:, 0]), len(y)))
        return np.zeros(len(points))

    scores = held_out(samples, table, lambda s: s.recipe, score)
    assert all(not train & test for train, test, _ in seen)
    assert [n for _, _, n in seen] == [8, 8, 8]
    assert set(scores.values()) == {0.0}


def test_without_features_or_without_both_labels_there_is_no_score():
    samples = [sample("a", poisoned=True, recipe="1"), sample("b", poisoned=False, recipe="2")]
    table = {"a": {"x": 1.0}, "b": {"x": 2.0}}
    assert held_out(samples, table, lambda s: s.recipe, lambda *_: [9.0]) == {"a": None, "b": None}
    assert held_out(samples, {}, lambda s: s.recipe, lambda *_: [9.0]) == {"a": None, "b": None}
