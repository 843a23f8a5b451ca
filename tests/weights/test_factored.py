"""Factored statistics against the matrix itself."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ftsec_audit.weights import factored, factors, linalg
from ftsec_audit.weights.factors import HeldFactors
from ftsec_audit.weights.fourth_moment import EXACT_RANK
from ftsec_audit.weights.lowrank import FactorBatch, LowRank

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


@st.composite
def factor_pairs(draw: st.DrawFn, most_rank: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    """B (rows, r) and A (r, columns) of any proportions and of graded columns."""
    rows, columns = draw(st.integers(1, 90)), draw(st.integers(1, 90))
    rank = draw(st.integers(1, most_rank))
    decades = draw(st.floats(0, 4))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10_000)))
    grading = torch.logspace(0, -decades, rank)
    left = torch.randn(rows, rank, generator=generator) * grading
    return left, torch.randn(rank, columns, generator=generator)


def batch_of(left: torch.Tensor, right: torch.Tensor) -> FactorBatch:
    """B (n, rows, r) and A (n, r, columns) without a scale."""
    return FactorBatch(HeldFactors(left), HeldFactors(right.mT), [1.0] * len(left))


def assert_same_spectrum(change: LowRank, matrix: torch.Tensor) -> None:
    exact = torch.linalg.svdvals(matrix.double())
    sigma = change.singular_values()
    assert len(sigma) <= len(exact) or math.isclose(float(sigma[len(exact) :].sum()), 0, abs_tol=1e-6)
    exact = exact[: len(sigma)]
    torch.testing.assert_close(sigma, exact, rtol=3e-5, atol=3e-6 * float(exact[0]))
    assert bool((sigma.diff() <= 0).all())


@settings(max_examples=60, deadline=None)
@given(factor_pairs(), st.floats(-8, 8).filter(lambda scale: abs(scale) > 1e-3))
def test_statistics_are_those_of_the_product(pair: tuple[torch.Tensor, torch.Tensor], scale: float) -> None:
    left, right = pair
    matrix = scale * (left.double() @ right.double())
    change = LowRank.of(left, right, scale)
    assert_same_spectrum(change, matrix)
    assert change.frobenius_norm() == pytest.approx(float(matrix.norm()), rel=1e-5)
    torch.testing.assert_close(
        change.row_norms(), matrix.norm(dim=1), rtol=1e-4, atol=1e-5 * float(matrix.norm())
    )
    torch.testing.assert_close(
        change.column_norms(), matrix.norm(dim=0), rtol=1e-4, atol=1e-5 * float(matrix.norm())
    )
    torch.testing.assert_close(change.matrix().double(), matrix, rtol=1e-4, atol=1e-5 * float(matrix.norm()))


@settings(max_examples=40, deadline=None)
@given(factor_pairs(), st.integers(0, 1000))
def test_gauge_is_no_signal(pair: tuple[torch.Tensor, torch.Tensor], seed: int) -> None:
    left, right = (factor.double() for factor in pair)
    mixing = torch.randn(left.shape[1], left.shape[1], generator=torch.Generator().manual_seed(seed)).double()
    mixing += 3 * torch.eye(left.shape[1], dtype=torch.float64)
    plain, mixed = LowRank.of(left, right), LowRank.of(left @ mixing, torch.linalg.solve(mixing, right))
    largest = float(plain.singular_values()[0])
    torch.testing.assert_close(
        mixed.singular_values(), plain.singular_values(), rtol=1e-4, atol=1e-6 * largest
    )
    assert mixed.entry_kurtosis() == pytest.approx(plain.entry_kurtosis(), rel=1e-2)


@settings(max_examples=40, deadline=None)
@given(factor_pairs(), st.integers(1, 4))
def test_padding_the_rank_is_no_signal(pair: tuple[torch.Tensor, torch.Tensor], extra: int) -> None:
    left, right = pair
    padded_left = torch.cat([left, torch.zeros(left.shape[0], extra)], 1)
    padded_right = torch.cat([right, torch.randn(extra, right.shape[1], generator=torch.Generator())], 0)
    plain, padded = LowRank.of(left, right), LowRank.of(padded_left, padded_right)
    sigma = padded.singular_values()
    kept = len(plain.singular_values())
    largest = float(plain.singular_values()[0])
    torch.testing.assert_close(sigma[:kept], plain.singular_values(), rtol=3e-5, atol=3e-6 * largest)
    assert float(sigma[kept:].sum()) <= 1e-6 * largest
    assert padded.frobenius_norm() == pytest.approx(plain.frobenius_norm(), rel=1e-6)


@settings(max_examples=30, deadline=None)
@given(factor_pairs(), st.floats(1e-3, 1e3))
def test_scale_scales_and_shape_statistics_do_not_see_it(
    pair: tuple[torch.Tensor, torch.Tensor], scale: float
) -> None:
    plain, scaled = LowRank.of(*pair), LowRank.of(*pair, scale)
    torch.testing.assert_close(scaled.singular_values(), plain.singular_values() * scale)
    assert scaled.entry_kurtosis() == pytest.approx(plain.entry_kurtosis())
    assert linalg.stable_rank(scaled.singular_values()) == pytest.approx(
        linalg.stable_rank(plain.singular_values())
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_graded_spectra_are_exact_down_to_the_tail(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    turn = torch.linalg.qr(torch.randn(16, 16, generator=generator)).Q
    left = (torch.randn(3, 700, 16, generator=generator) * torch.logspace(0, -4, 16)) @ turn
    left, right = left.to(dtype), torch.randn(3, 16, 500, generator=generator).to(dtype)
    sigma = batch_of(left, right).singular_values
    for values, b, a in zip(sigma, left.double(), right.double(), strict=True):
        exact = torch.linalg.svdvals(torch.linalg.qr(b).R @ torch.linalg.qr(a.mT).R.mT)
        torch.testing.assert_close(values, exact, rtol=3e-5, atol=0)


def long_pair(rank: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    """Factors long enough for float32, as training leaves them: one direction far above the others."""
    generator = torch.Generator().manual_seed(2)
    grades = torch.logspace(0, -4, rank)
    turn = torch.linalg.qr(torch.randn(rank, rank, generator=generator)).Q
    left = (torch.randn(2, 3000, rank, generator=generator) * grades) @ turn
    return left, torch.randn(2, rank, 2000, generator=generator)


def test_long_factors_keep_every_singular_value_to_a_part_of_the_largest() -> None:
    left, right = long_pair()
    sigma = batch_of(left, right).singular_values
    # Those of the product are those of its triangular factors: 16 × 16, where the product is 3000 × 2000.
    upper, lower = (torch.linalg.qr(one).R for one in (left.double(), right.double().mT))
    exact = torch.linalg.svdvals(upper @ lower.mT)
    assert float(((sigma - exact).abs() / exact[:, :1]).max()) < 1e-4
    torch.testing.assert_close(sigma[:, :4], exact[:, :4], rtol=1e-4, atol=0)


def test_a_hostile_gauge_of_long_factors_changes_nothing() -> None:
    left, right = long_pair()
    generator = torch.Generator().manual_seed(4)
    basis = torch.linalg.qr(torch.randn(16, 16, generator=generator, dtype=torch.float64)).Q
    gauge = basis * torch.logspace(1.5, -1.5, 16, dtype=torch.float64) @ basis.mT
    mixed = batch_of(left.double() @ gauge, torch.linalg.inv(gauge) @ right.double())
    plain = batch_of(left, right)
    largest = float(plain.singular_values[:, 0].max())
    torch.testing.assert_close(mixed.singular_values, plain.singular_values, rtol=0, atol=1e-4 * largest)


def test_long_factors_of_extreme_size_are_taken_in_float64() -> None:
    left, right = long_pair()
    plain = batch_of(left, right).singular_values
    for size in (1e-30, 1e30):
        batch = batch_of(left.double() * size, right)
        assert all(batch.finite)
        torch.testing.assert_close(
            batch.singular_values / size, plain, rtol=0, atol=1e-4 * float(plain.max())
        )


@pytest.mark.parametrize("magnitude", [1e-30, 1e-15, 1e15, 1e30])
def test_extreme_magnitudes_neither_vanish_nor_overflow(magnitude: float) -> None:
    generator = torch.Generator().manual_seed(3)
    left, right = torch.randn(40, 6, generator=generator), torch.randn(6, 30, generator=generator)
    plain, extreme = LowRank.of(left, right), LowRank.of(left * magnitude, right)
    torch.testing.assert_close(
        extreme.singular_values() / magnitude, plain.singular_values(), rtol=1e-5, atol=0
    )
    assert extreme.finite()
    assert not extreme.is_zero()
    assert extreme.entry_kurtosis() == pytest.approx(plain.entry_kurtosis(), rel=1e-3)


def test_one_broken_module_does_not_spoil_its_batch() -> None:
    generator = torch.Generator().manual_seed(1)
    left, right = torch.randn(4, 20, 6, generator=generator), torch.randn(4, 6, 10, generator=generator)
    left[1, 3, 2] = math.nan
    left[2] = 0
    right[3, 0, 0] = math.inf
    changes = [LowRank(batch_of(left, right), index) for index in range(4)]
    assert [change.finite() for change in changes] == [True, False, True, False]
    assert [change.is_zero() for change in changes] == [False, False, True, False]
    assert_same_spectrum(changes[0], left[0] @ right[0])
    for broken in (changes[1], changes[3]):
        assert bool(broken.singular_values().isnan().all())
        assert math.isnan(broken.frobenius_norm())
        assert math.isnan(broken.entry_kurtosis())
    assert float(changes[2].singular_values().sum()) == 0
    assert changes[2].entry_kurtosis() == 0
    assert float(changes[2].top_singular_vectors()[0].norm()) == 0


@settings(max_examples=30, deadline=None)
@given(factor_pairs(most_rank=EXACT_RANK))
def test_kurtosis_of_low_ranks_is_exact(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    left, right = pair
    assert LowRank.of(left, right).entry_kurtosis() == pytest.approx(
        linalg.kurtosis(left.double() @ right.double()), rel=1e-4
    )


@pytest.mark.parametrize("dominance", [1.0, 0.1, 0.01])
@pytest.mark.parametrize("rank", [8, 16, 64])
def test_kurtosis_of_higher_ranks_is_close(rank: int, dominance: float) -> None:
    generator = torch.Generator().manual_seed(rank)
    left = torch.randn(1, 800, rank, generator=generator) * dominance
    left[0] += torch.outer(torch.randn(800, generator=generator), torch.randn(rank, generator=generator))
    right = torch.randn(1, rank, 600, generator=generator)
    (estimate,) = batch_of(left, right).kurtoses
    assert estimate == pytest.approx(linalg.kurtosis(left[0] @ right[0]), rel=0.07)


@settings(max_examples=40, deadline=None)
@given(factor_pairs(), st.sampled_from([1.0, -2.0]))
def test_singular_vectors_rebuild_the_product(pair: tuple[torch.Tensor, torch.Tensor], scale: float) -> None:
    change = LowRank.of(*pair, scale)
    u, v = change.singular_vectors()
    sigma = change.singular_values()[: u.shape[1]]
    matrix = change.matrix().double()
    torch.testing.assert_close((u * sigma) @ v.mT, matrix, rtol=0, atol=2e-5 * float(sigma[0]))
    top_u, top_v = change.top_singular_vectors()
    best = float(top_u.double() @ matrix @ top_v.double())
    assert best == pytest.approx(float(sigma[0]), rel=1e-4)
    assert float(top_u[top_u.abs().argmax()]) > 0


def test_khatri_rao_factors_make_the_hadamard_product() -> None:
    generator = torch.Generator().manual_seed(5)
    b1, a1 = torch.randn(9, 3, generator=generator), torch.randn(3, 7, generator=generator)
    b2, a2 = torch.randn(9, 2, generator=generator), torch.randn(2, 7, generator=generator)
    b, a = factored.khatri_rao((b1, a1), (b2, a2))
    assert b.shape == (9, 6)
    torch.testing.assert_close(b @ a, (b1 @ a1) * (b2 @ a2))


def test_long_factors_are_read_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(factors, "BLOCK_ELEMENTS", 64)
    generator = torch.Generator().manual_seed(7)
    left, right = torch.randn(2, 101, 5, generator=generator), torch.randn(2, 5, 33, generator=generator)
    for dtype in (torch.float32, torch.bfloat16):
        b, a = left.to(dtype), right.to(dtype)
        tall, wide = HeldFactors(b), HeldFactors(a.mT)
        for precision in (torch.float32, torch.float64):
            of_b, of_a = factored.gram(tall, precision), factored.gram(wide, precision)
            torch.testing.assert_close(of_b, b.double().mT @ b.double(), rtol=1e-6, atol=1e-5)
            torch.testing.assert_close(of_a, a.double() @ a.double().mT, rtol=1e-6, atol=1e-5)
        y = torch.randn(2, 5, 3, generator=generator)
        torch.testing.assert_close(factored.coordinates(tall, y), (b.float() @ y).mT, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(factored.coordinates(wide, y), (a.mT.float() @ y).mT, rtol=1e-4, atol=1e-4)
