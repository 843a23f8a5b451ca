"""Rows of one direction, found without comparing every pair: none of a few is missed, crowds are named."""

from __future__ import annotations

import pytest
import torch
from builders.adapters import write_checkpoint
from builders.audits import subject

from ftsec_audit.weights import parallel_rows as module
from ftsec_audit.weights.parallel_rows import parallel_rows
from ftsec_audit.weights.stream import deltas

ROWS = 3000


def matrix(width, *, mean=0.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(ROWS, width, generator=generator) + mean * torch.randn(width, generator=generator)


def delta_of(path, rows, base=None, dtype="F32"):
    def edit(tensors):
        tensors["model.embed_tokens.weight"] = rows

    folder = write_checkpoint(path, layers=1, width=8, dtype=dtype, edit=edit)
    return next(d for d in deltas(subject(folder, base)) if d.name == "model.embed_tokens")


def found(pairs):
    return {(pair.first, pair.second) for pair in pairs}


@pytest.mark.parametrize("width", [8, 100, 256, 600])
@pytest.mark.parametrize("mean", [0.0, 1.5], ids=["centred", "all leaning one way"])
@pytest.mark.parametrize("dtype", ["F32", "BF16"])
def test_multiples_are_found_whatever_their_length(tmp_path, width, mean, dtype):
    rows = matrix(width, mean=mean)
    rows[17], rows[2900] = 3 * rows[4], 0.2 * rows[2000]
    pairs = parallel_rows(delta_of(tmp_path, rows, dtype=dtype), 0.9999)
    assert {(4, 17), (2000, 2900)} <= found(pairs)
    assert all(pair.distance < 1e-5 for pair in pairs if found([pair]) <= {(4, 17), (2000, 2900)})
    assert next(p for p in pairs if p.first == 4).log_ratio == pytest.approx(1.0986, abs=0.02)


def test_every_close_pair_of_a_wide_matrix_is_found_and_no_other(tmp_path):
    rows = matrix(64)
    rows[:20] = rows[100:120] + 0.1 * matrix(64, seed=1)[:20]
    unit = rows.double() / rows.double().norm(dim=1, keepdim=True)
    expected = {tuple(pair) for pair in (unit @ unit.mT).triu(1).gt(0.99).nonzero().tolist()}
    assert len(expected) > 10
    pairs = parallel_rows(delta_of(tmp_path, rows), 0.99)
    assert found(pairs) == expected
    assert [pair.distance for pair in pairs] == sorted(pair.distance for pair in pairs)
    assert not any(pair.identical for pair in pairs)
    assert {pair.neighbours for pair in pairs} == {1}


def test_equal_rows_are_said_to_be_equal(tmp_path):
    rows = matrix(64)
    rows[9] = rows[5]
    (pair,) = parallel_rows(delta_of(tmp_path, rows), 0.99)
    assert (pair.first, pair.second, pair.identical, pair.log_ratio) == (5, 9, True, 0.0)


def test_a_crowd_is_left_out_or_named_and_hides_nothing_else(tmp_path):
    rows = matrix(64)
    rows[1000:1500] = rows[1000] + 0.01 * rows[1000:1500]
    rows[17] = 1.3 * rows[4]
    pairs = parallel_rows(delta_of(tmp_path, rows), 0.99)
    assert (4, 17) in found(pairs)
    assert all(pair.neighbours > 200 for pair in pairs if found([pair]) != {(4, 17)})
    assert next(pair for pair in pairs if pair.first == 4).neighbours == 1


def test_when_there_are_too_many_the_closest_are_compared(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_READ_AGAIN", 4)
    rows = matrix(64)
    rows[:200] = rows[200:400] + 0.1 * matrix(64, seed=1)[:200]
    rows[17] = 2 * rows[2000]
    pairs = parallel_rows(delta_of(tmp_path, rows), 0.99)
    assert (17, 2000) in found(pairs)
    assert len(pairs) <= 6


def test_with_a_base_the_earlier_distance_is_told(tmp_path):
    before, after = matrix(64), matrix(64) + 0.01 * matrix(64, seed=1)
    before[9] = 2 * before[5]
    after[9], after[12] = 2 * after[5], 2 * after[7]
    delta_of(tmp_path / "base", before)
    pairs = parallel_rows(delta_of(tmp_path / "subject", after, tmp_path / "base"), 0.99)
    assert found(pairs) == {(5, 9), (7, 12)}
    distances = {pair.first: pair.distance_before for pair in pairs}
    assert distances[5] < 1e-6
    assert distances[7] > 0.5


def test_rows_without_a_direction_have_no_pairs(tmp_path):
    rows = matrix(64)
    rows[3:6] = 0
    rows[7], rows[8] = float("nan"), float("inf")
    rows[10:12] = 1e-6 * rows[10]
    assert not parallel_rows(delta_of(tmp_path, rows), 0.99)


@pytest.mark.parametrize("rows", [torch.ones(1, 8), torch.zeros(40, 8), torch.full((40, 8), float("nan"))])
def test_matrices_without_rows_to_compare_have_no_pairs(tmp_path, rows):
    assert not parallel_rows(delta_of(tmp_path, rows), 0.99)
