"""Scores that are fitted have not seen what they score, and an open question is an abstention."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ftsec_audit.calibration.recipe import Recipe
from ftsec_audit.types import Confidence, Finding, Outcome, Severity, Verdict
from ftsec_audit.validate import lab_bank
from ftsec_audit.validate.cells import thresholds
from ftsec_audit.validate.population import Labelled
from ftsec_audit.validate.records import Record
from ftsec_audit.validate.scorers import NOT_FITTED, Scored, every_score, held_out, rule_scores


def sample(key: str, *, poisoned: bool, recipe: str = "r", job: str = "") -> Labelled:
    return Labelled(
        key=key,
        base_name="lab-llama-nano",
        attack="token-backdoor",
        poisoned=poisoned,
        recipe=recipe,
        job=job or key,
        stealth=(),
        seed=0,
        trigger=(),
        expected_rules=(),
    )


def answer(outcome: Outcome, p_value: float | None = None) -> Finding:
    return Finding(
        rule="FTA299",
        outcome=outcome,
        severity=Severity.HIGH,
        confidence=Confidence.HIGH,
        summary="",
        p_value=p_value,
    )


def scanned(one: Labelled, *findings: Finding, x: float | None = None) -> Record:
    return Record(
        sample=one,
        digest="",
        profile="standard",
        verdict=Verdict.PASS,
        findings=findings,
        features={} if x is None else {"x": x, "y": x * x % 7},
        comparable=Recipe(family="llama", method="lora", rank="r 5-8", targets="mlp", objective="causal_lm"),
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
    assert rule_scores([scanned(sample("a", poisoned=True), *findings)], "FTA299") == {"a": score}


def test_a_sample_that_could_not_be_scanned_has_no_score():
    one = replace(scanned(sample("a", poisoned=True)), verdict=None, error="x")
    assert rule_scores([one], "FTA299") == {"a": None}


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


def test_the_bank_of_a_sample_holds_nothing_poisoned_and_nothing_of_its_group():
    records = [
        scanned(sample(f"{recipe}{i}", poisoned=i == 0, recipe=recipe, job=f"{recipe}{i}"), x=float(i))
        for recipe in "ab"
        for i in range(9)
    ]
    (pack,) = lab_bank.calibration(one for one in records if one.sample.recipe != "a").packs
    assert {entry.provenance.path for entry in pack.entries} == {f"b{i}" for i in range(1, 9)}


def test_a_sample_unlike_the_benign_ones_of_other_recipes_is_told_by_their_bank():
    rng = np.random.default_rng(0)
    records = [
        scanned(sample(f"{recipe}{i}", poisoned=False, recipe=recipe), x=float(rng.normal()))
        for recipe in "abc"
        for i in range(12)
    ]
    records.append(scanned(sample("far", poisoned=True, recipe="a"), x=40.0))
    judged = lab_bank.judged_by_fold(records, lambda one: one.recipe)
    p_values = {key: one.findings[0].p_value for key, one in judged.items()}
    assert p_values["far"] == pytest.approx(1 / 25)  # 24 benign samples of other recipes, all nearer
    assert sum(p is not None and p > 0.04 for p in p_values.values()) >= 30


def test_no_sample_has_a_part_in_the_threshold_it_is_held_against():
    samples = [sample(f"{recipe}{i}", poisoned=False, recipe=recipe) for recipe in "ab" for i in range(3)]
    scores = {one.key: float(number) for number, one in enumerate(samples)}
    limits = thresholds(samples, Scored(name="x", fitted=NOT_FITTED, scores=scores))
    assert limits == {"a": 5.0, "b": 2.0}


def test_a_detection_outranks_a_small_p_value_and_no_finding_at_all_is_no_abstention():
    records = [
        scanned(sample("detected", poisoned=True), answer(Outcome.DETECTED, 0.5)),
        scanned(sample("unlikely", poisoned=False), answer(Outcome.NOT_DETECTED, 0.001)),
        scanned(sample("quiet", poisoned=False), answer(Outcome.NOT_DETECTED)),
    ]
    (strongest,) = (s for s in every_score(records) if s.name == "strongest finding")
    order = sorted(strongest.scores, key=lambda key: strongest.scores[key] or 0.0)
    assert order == ["quiet", "unlikely", "detected"]
    assert strongest.scores["quiet"] == 0.0
