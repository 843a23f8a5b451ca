"""Areas, thresholds and intervals against definitions and known values."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftsec_audit.validate.curves import auroc, auroc_interval, hits_above, share_interval, threshold, wilson

SCORES = st.lists(st.integers(-5, 5).map(float), min_size=1, max_size=12)


@given(bad=SCORES, good=SCORES)
def test_the_area_is_the_share_of_ordered_pairs(bad, good):
    pairs = [1.0 if b > g else 0.5 if b == g else 0.0 for b in bad for g in good]
    assert auroc(bad, good) == pytest.approx(sum(pairs) / len(pairs))
    assert auroc(bad, good) + auroc(good, bad) == pytest.approx(1.0)


def test_an_empty_side_has_no_area():
    assert math.isnan(auroc([], [1.0]))
    assert all(math.isnan(end) for end in auroc_interval([1.0], []))


def test_the_interval_holds_the_area_and_shrinks_with_n():
    bad, good = [1.0, 2.0, 3.0, 4.0], [0.0, 1.5, 2.5, 0.5]
    few, many = auroc_interval(bad, good), auroc_interval(bad * 20, good * 20)
    assert few[0] <= auroc(bad, good) <= few[1]
    assert many[1] - many[0] < few[1] - few[0]


def test_copies_of_one_sample_make_no_interval_narrower():
    bad, good = [1.0, 2.0, 3.0, 4.0], [0.0, 1.5, 2.5, 0.5]
    names = [f"b{i}" for i in range(4)], [f"g{i}" for i in range(4)]
    alone = auroc_interval(bad, good, clusters=names)
    copied = auroc_interval(bad * 20, good * 20, clusters=(names[0] * 20, names[1] * 20))
    assert copied == pytest.approx(alone)
    assert share_interval([True] * 40 + [False] * 40, (["a"] * 40 + ["b"] * 40)) == wilson(1, 2)


def test_perfect_separation_of_few_samples_is_not_certainty():
    assert auroc_interval([1.0, 1.0], [0.0] * 50) == (pytest.approx(0.158, abs=1e-3), 1.0)


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"), [(0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (5, 10, 0.2366, 0.7634)]
)
def test_wilson_matches_published_values(hits, n, low, high):
    assert wilson(hits, n) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))


@given(good=SCORES, rate=st.sampled_from([0.0, 0.01, 0.1, 0.5]))
def test_no_more_benign_samples_than_allowed_lie_above_the_threshold(good, rate):
    limit = threshold(good, rate)
    assert sum(score > limit for score in good) <= rate * len(good)


def test_hits_lie_strictly_above():
    assert hits_above([1.0, 2.0, 3.0], [1.0, 2.0], 0.01) == 1
    assert hits_above([1.0], [], 0.01) == 0
