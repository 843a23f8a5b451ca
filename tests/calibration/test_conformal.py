"""Conformal p-values: exactness, groups, and what must not look rare."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftsec_audit.calibration.conformal import (
    conformal_scores,
    ledoit_wolf,
    mahalanobis,
    nearest_neighbours,
    p_value,
    widened,
)


def test_p_value_is_the_share_at_least_as_strange_plus_one():
    assert p_value(5.0, [1.0, 2.0, 3.0]) == 1 / 4
    assert p_value(2.0, [1.0, 2.0, 3.0]) == 3 / 4  # ties count against the finding
    assert p_value(0.0, [1.0, 2.0, 3.0]) == 1.0


def test_an_empty_bank_says_nothing():
    assert p_value(1e9, []) == 1.0


@pytest.mark.parametrize(("score", "expected"), [(float("nan"), 1.0), (float("inf"), 1 / 4)])
def test_scores_that_are_not_finite(score, expected):
    assert p_value(score, [1.0, 2.0, 3.0]) == expected


def test_nan_in_the_bank_counts_against_the_finding():
    assert p_value(5.0, [float("nan"), 2.0, 3.0]) == 2 / 4


def test_members_of_one_repository_share_one_vote():
    # 50 checkpoints of one repository are not 50 independent witnesses.
    bank, groups = [0.0] * 50 + [9.0], ["many"] * 50 + ["one"]
    assert p_value(5.0, bank, groups) == pytest.approx((1 + 1) / 3)
    assert p_value(10.0, bank, groups) == pytest.approx(1 / 3)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30), st.floats(-1e6, 1e6), st.floats(0, 1e6))
def test_p_value_is_bounded_and_falls_with_the_score(bank, score, step):
    p, larger = p_value(score, bank), p_value(score + step, bank)
    assert 1 / (len(bank) + 1) <= larger <= p <= 1.0


def test_a_wider_population_weakens_the_p_value():
    assert widened(0.01, 0) == 0.01
    assert widened(0.01, 2) == 0.04
    assert widened(0.6, 3) == 1.0


@pytest.mark.parametrize("score", [mahalanobis, partial(nearest_neighbours, k=3)])
def test_p_values_are_uniform_under_exchangeability(score):
    rng = np.random.default_rng(7)
    p_values = []
    for _ in range(300):
        data = rng.standard_t(df=3, size=(25, 6))
        groups = [str(i) for i in range(24)]
        p_values.append(conformal_scores(data[:24], data[24], groups, score).p_value())
    # Valid: P(p ≤ α) ≤ α, up to the sampling error of 300 draws; and not useless: close to it.
    for alpha in (0.04, 0.2, 0.52):
        share = np.mean([p <= alpha + 1e-9 for p in p_values])
        assert abs(share - alpha) < 3.5 * np.sqrt(alpha * (1 - alpha) / 300)


def test_p_values_are_valid_for_a_new_repository_of_correlated_members():
    rng = np.random.default_rng(11)
    p_values = []
    for _ in range(200):
        centres = rng.normal(size=(13, 4)) * 3.0
        rows = np.concatenate([c + 0.1 * rng.normal(size=(6, 4)) for c in centres[:12]])
        groups = [str(i // 6) for i in range(72)]
        p_values.append(conformal_scores(rows, centres[12], groups, mahalanobis).p_value())
    # Had the members been counted singly and scored against their own repository, p ≤ 1/73 would be common.
    assert np.mean([p <= 1 / 13 + 1e-9 for p in p_values]) < 1 / 13 + 0.06
    assert min(p_values) >= 1 / 13 - 1e-9


@pytest.mark.parametrize("folds", [3, 10])
def test_fewer_fits_than_groups_err_on_the_safe_side(folds):
    rng = np.random.default_rng(4)
    p_values = []
    for _ in range(300):
        data = rng.normal(size=(31, 4))
        groups = [str(i) for i in range(30)]
        p_values.append(conformal_scores(data[:30], data[30], groups, mahalanobis, folds=folds).p_value())
    for alpha in (1 / 31, 0.1, 0.5):
        assert np.mean([p <= alpha + 1e-9 for p in p_values]) < alpha + 3 * np.sqrt(alpha / 300)


def test_an_outlier_is_found_and_reported_with_its_band():
    rng = np.random.default_rng(3)
    bank = rng.normal(size=(40, 8))
    scores = conformal_scores(bank, np.full(8, 6.0), [str(i) for i in range(40)], mahalanobis)
    assert scores.p_value() == pytest.approx(1 / 41)
    assert scores.quantile() == 1.0
    low, high = scores.band()
    assert low < high < scores.subject


def test_the_answer_does_not_depend_on_the_order_of_the_bank():
    rng = np.random.default_rng(5)
    bank, x = rng.normal(size=(15, 4)), rng.normal(size=4)
    groups = [str(i // 3) for i in range(15)]
    order = rng.permutation(15)
    first = conformal_scores(bank, x, groups, mahalanobis)
    second = conformal_scores(bank[order], x, [groups[i] for i in order], mahalanobis)
    assert first.subject == pytest.approx(second.subject)
    assert first.p_value() == pytest.approx(second.p_value())


@pytest.mark.parametrize("shape", [(3, 40), (1, 5), (40, 3)])
def test_shrunk_covariance_can_always_be_inverted(shape):
    covariance = ledoit_wolf(np.random.default_rng(0).normal(size=shape))
    assert np.isfinite(np.linalg.inv(covariance)).all()


def test_columns_without_spread_do_not_blow_up():
    bank = np.ones((10, 3))
    bank[:, 0] = np.arange(10.0)
    subject = np.array([4.5, 1.0, 1.0])
    assert np.isfinite(mahalanobis(bank, subject[None])).all()
    assert np.isfinite(nearest_neighbours(bank, subject[None])).all()


def test_shrinkage_agrees_with_scikit_learn():
    from sklearn.covariance import ledoit_wolf as reference

    z = np.random.default_rng(2).normal(size=(30, 5)) @ np.diag([1.0, 2.0, 3.0, 0.5, 1.0])
    assert ledoit_wolf(z) == pytest.approx(reference(z)[0], rel=1e-8)
