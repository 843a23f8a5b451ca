"""Cauchy combination and Benjamini–Hochberg against known values."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ftsec_audit.calibration.fusion import benjamini_hochberg, cauchy_combination

P = st.floats(0.0, 1.0, allow_nan=False)


def test_a_single_p_value_passes_through():
    for p in (1e-12, 0.01, 0.3, 0.5, 0.9):
        assert cauchy_combination([p]) == pytest.approx(p, rel=1e-9)


def test_tiny_p_values_keep_their_digits():
    assert cauchy_combination([1e-200, 1e-200]) == pytest.approx(1e-200)
    # One strong signal among k is worth about k·p, as with Bonferroni.
    assert cauchy_combination([1e-20, 0.5, 0.5, 0.5]) == pytest.approx(4e-20, rel=1e-6)


def test_p_values_at_the_end_of_the_floats_do_not_overflow():
    assert 0.0 < cauchy_combination([2.2e-309] * 5) < 1e-280


def test_a_p_value_of_one_does_not_veto():
    assert cauchy_combination([1e-6, 1.0]) < 1e-5


def test_zero_and_equal_inputs():
    assert cauchy_combination([0.0, 0.7]) == 0.0
    assert cauchy_combination([0.03] * 10) == pytest.approx(0.03)


def test_weights_move_the_answer_towards_their_test():
    assert cauchy_combination([0.01, 0.9], [9.0, 1.0]) < cauchy_combination([0.01, 0.9], [1.0, 9.0])


@pytest.mark.parametrize(
    ("p_values", "weights"),
    [([], None), ([1.1], None), ([-0.1], None), ([math.nan], None), ([0.1], [0.0]), ([0.1], [1.0, 1.0])],
)
def test_nonsense_is_refused(p_values, weights):
    with pytest.raises(ValueError):
        cauchy_combination(p_values, weights)


@given(st.lists(P, min_size=1, max_size=20))
def test_the_combination_is_a_p_value(p_values):
    assert 0.0 <= cauchy_combination(p_values) <= 1.0


def test_the_combination_holds_its_level_under_dependence():
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(4000, 1))
    p = stats.norm.sf(0.9 * shared + math.sqrt(1 - 0.81) * rng.normal(size=(4000, 6)))
    share = np.mean([cauchy_combination(list(row)) <= 0.01 for row in p])
    assert share <= 0.01 + 3 * math.sqrt(0.01 * 0.99 / 4000)


@given(st.lists(P, max_size=30))
def test_benjamini_hochberg_agrees_with_scipy(p_values):
    expected = stats.false_discovery_control(p_values) if p_values else []
    assert benjamini_hochberg(p_values) == pytest.approx(list(expected))


def test_benjamini_hochberg_keeps_the_order_of_its_input():
    assert benjamini_hochberg([0.04, 0.001, 0.9]) == pytest.approx([0.06, 0.003, 0.9])
