"""Streamed differences against the whole matrices."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from ftsec_audit.errors import Unsupported
from ftsec_audit.sources import resolve
from ftsec_audit.weights import dense, linalg, moments, stored
from ftsec_audit.weights.dense import Dense
from ftsec_audit.weights.moments import Held
from ftsec_audit.weights.stored import StoredPair, StoredTensor


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 200 elements, so that small matrices come in many."""
    monkeypatch.setattr(moments, "BLOCK_ELEMENTS", 200)
    monkeypatch.setattr(stored, "BLOCK_ELEMENTS", 200)


def pair(folder: Path, after: torch.Tensor, before: torch.Tensor) -> StoredPair:
    for name, tensor in (("after", after), ("before", before)):
        (folder / name).mkdir(exist_ok=True)
        save_file({"w.weight": tensor}, folder / name / "model.safetensors")
        (folder / name / "config.json").write_text('{"model_type": "llama"}')
    indices = [resolve(str(folder / name)).tensors() for name in ("after", "before")]
    return StoredPair(*(StoredTensor(index, "w.weight") for index in indices))


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("dtypes", [(torch.float32, torch.float32), (torch.bfloat16, torch.float16)])
@pytest.mark.parametrize("shape", [(37, 20), (3, 66), (1, 30), (50, 1)])
def test_statistics_are_those_of_the_difference(
    tmp_path: Path, shape: tuple[int, int], dtypes: tuple[torch.dtype, torch.dtype], transposed: bool
) -> None:
    before = random(*shape).to(dtypes[1])
    after = (before.float() + 0.1 * random(*shape, seed=1)).to(dtypes[0])
    change = Dense(pair(tmp_path, after, before), transposed=transposed)
    matrix = after.double() - before.double()
    matrix = matrix.mT if transposed else matrix
    assert change.shape == tuple(matrix.shape)
    torch.testing.assert_close(change.matrix().double(), matrix, rtol=1e-5, atol=1e-6)
    assert change.frobenius_norm() == pytest.approx(float(matrix.norm()), rel=1e-5)
    assert change.base_norm() == pytest.approx(float(before.double().norm()), rel=1e-5)
    assert change.entry_kurtosis() == pytest.approx(linalg.kurtosis(matrix), rel=1e-4)
    torch.testing.assert_close(change.row_norms(), matrix.norm(dim=1), rtol=1e-4, atol=1e-6)
    exact = torch.linalg.svdvals(matrix)
    torch.testing.assert_close(change.singular_values(), exact, rtol=1e-4, atol=1e-5)
    u, v = change.singular_vectors()
    torch.testing.assert_close((u * exact) @ v.mT, matrix, rtol=1e-4, atol=1e-5)
    assert change.finite()
    assert not change.is_zero()


def test_leading_directions_of_a_large_difference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dense, "_EXACT_WORK", 0)
    matrix = random(60, 3) @ random(3, 40, seed=1) + 0.001 * random(60, 40, seed=2)
    for transposed in (False, True):
        stored_matrix = matrix.mT.contiguous() if transposed else matrix
        source = pair(tmp_path, stored_matrix, torch.zeros_like(stored_matrix))
        change = Dense(source, transposed=transposed)
        assert not change.spectrum_is_exact
        torch.testing.assert_close(
            change.singular_values()[:3], torch.linalg.svdvals(matrix.double())[:3], rtol=1e-4, atol=0
        )
        u, v = change.top_singular_vectors()
        assert float(u.double() @ matrix.double() @ v.double()) == pytest.approx(
            float(change.singular_values()[0]), rel=1e-4
        )


def test_a_row_longer_than_a_block_is_one_vector(tmp_path: Path) -> None:
    before, after = random(4, 333), random(4, 333, seed=1)
    change = Dense(pair(tmp_path, after, before))
    assert change.shape == (1, 4 * 333)
    assert change.frobenius_norm() == pytest.approx(float((after - before).norm()), rel=1e-5)
    assert bool(change.moments.changed.all())


def test_a_long_vector_has_moments_but_no_directions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dense, "BLOCK_ELEMENTS", 200)
    change = Dense(pair(tmp_path, random(1000), random(1000, seed=1)))
    assert change.frobenius_norm() > 0
    with pytest.raises(Unsupported, match="vector"):
        change.singular_values()


@pytest.mark.parametrize("magnitude", [1e-25, 1e-12, 1e12, 1e25])
def test_extreme_differences_neither_vanish_nor_overflow(magnitude: float) -> None:
    matrix = random(30, 20) * magnitude
    change = Dense(Held(matrix))
    assert change.frobenius_norm() == pytest.approx(float(matrix.double().norm()), rel=1e-5)
    assert change.entry_kurtosis() == pytest.approx(linalg.kurtosis(matrix), rel=1e-4)
    assert int(change.moments.changed.sum()) == 30


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_broken_values_are_found_and_spoil_only_numbers(value: float) -> None:
    after = random(30, 20)
    after[4, 5] = value
    change = Dense(Held(after, random(30, 20, seed=1)))
    assert not change.finite()
    assert not change.is_zero()
    assert not math.isfinite(change.frobenius_norm())
    assert bool(change.singular_values().isnan().all())
    assert change.row_norms().isfinite().sum() == 29


def test_a_broken_base_is_not_the_subjects_fault() -> None:
    before = random(30, 20)
    before[0, 0] = math.nan
    change = Dense(Held(random(30, 20, seed=1), before))
    assert change.finite()
    assert math.isnan(change.frobenius_norm())


@settings(max_examples=30, deadline=None)
@given(st.sets(st.integers(0, 49), max_size=5), st.integers(0, 99))
def test_changed_rows_are_exactly_those_with_another_bit(rows: set[int], seed: int) -> None:
    before = random(50, 12, seed=seed).bfloat16()
    after = before.clone()
    for row in rows:
        after[row, seed % 12] = torch.nextafter(after[row, seed % 12], torch.tensor(9e9).bfloat16())
    changed = Dense(Held(after, before)).moments.changed
    assert set(changed.nonzero()[:, 0].tolist()) == rows


def test_single_rows_are_read_by_number(tmp_path: Path) -> None:
    before, after = random(90, 12), random(90, 12, seed=1)
    source = pair(tmp_path, after, before)
    for wanted in ([3, 80, 3], list(range(89, -1, -1))):
        new, old = source.rows(wanted)
        torch.testing.assert_close(new, after[wanted])
        assert old is not None
        torch.testing.assert_close(old, before[wanted])
    for missing in ([90], [-1]):
        with pytest.raises(IndexError):
            source.rows(missing)


def test_equality_is_of_bits_and_sees_through_a_coarser_copy(tmp_path: Path) -> None:
    value = random(40, 12)
    value[0, 0] = math.nan
    assert pair(tmp_path, value, value.clone()).is_unchanged()
    rounded = random(40, 12).bfloat16()
    assert pair(tmp_path, rounded, random(40, 12)).is_unchanged()
    assert pair(tmp_path, rounded.float(), rounded).is_unchanged()
    signed = rounded.clone()
    signed[39, 11] = 0.0
    other = signed.clone()
    other[39, 11] = -0.0
    assert not pair(tmp_path, signed, other).is_unchanged()
    assert not pair(tmp_path, rounded, rounded[:39]).is_unchanged()


def test_an_empty_matrix_is_no_change() -> None:
    change = Dense(Held(torch.zeros(0, 7)))
    assert change.is_zero()
    assert change.frobenius_norm() == 0
    assert change.entry_kurtosis() == 0
    assert change.singular_values().numel() == 0
    assert change.matrix().shape == (0, 7)
