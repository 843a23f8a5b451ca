"""What a matrix writes along a direction, against the textbook, for every block size and orientation."""

from __future__ import annotations

import pytest
import torch

from ftsec_audit.errors import NotApplicable, Unsupported
from ftsec_audit.weights import moments, written_direction
from ftsec_audit.weights.delta import Delta, DeltaKind
from ftsec_audit.weights.dense import Dense
from ftsec_audit.weights.moments import Held
from ftsec_audit.weights.written_direction import least_written, written_along


def delta(after, before=None, *, transposed=False):
    held = Held(after.mT.contiguous(), before.mT.contiguous() if before is not None else None)
    source = held if transposed else Held(after, before)
    kind = DeltaKind.FULL if before is None else DeltaKind.DENSE
    change = Dense(source, transposed=transposed)
    return Delta(name="writer", kind=kind, shape=change.shape, tensors=(), change=change)


@pytest.fixture(params=[64, 1 << 17], ids=["small blocks", "one block"])
def block(request, monkeypatch):
    monkeypatch.setattr(moments, "BLOCK_ELEMENTS", request.param)
    monkeypatch.setattr(written_direction, "_COLUMNS", request.param)


both_orientations = pytest.mark.parametrize("transposed", [False, True])


@both_orientations
def test_both_sides_along_a_direction(block, transposed):
    after, before = torch.randn(2, 20, 50).unbind()
    u = torch.nn.functional.normalize(torch.randn(20), dim=0)
    written = written_along(delta(after, before, transposed=transposed), u)
    assert torch.allclose(written.after.float(), u @ after, atol=1e-5)
    assert torch.allclose(written.before.float(), u @ before, atol=1e-5)
    alone = written_along(delta(after, transposed=transposed), u)
    assert alone.before is None
    assert (alone.lost, alone.removal(1.0)) == (0.0, 0.0)


@pytest.mark.parametrize("strength", [0.2, 1.0, 2.0])
def test_the_removal_of_a_direction_is_one_at_any_strength(strength):
    before = torch.randn(20, 50).double()
    u = torch.nn.functional.normalize(torch.randn(20).double(), dim=0)
    removed = strength * torch.outer(u, u @ before)
    written = written_along(delta(before - removed, before), u)
    assert written.removal(float(removed.norm())) == pytest.approx(1)
    assert written.lost == pytest.approx(1 - (1 - strength) ** 2)
    added = written_along(delta(before + removed, before), u)
    assert added.removal(float(removed.norm())) == pytest.approx(-1)


@both_orientations
def test_the_least_written_direction_is_the_last_singular_vector(block, transposed):
    matrix = torch.randn(20, 60)
    u, share = least_written(delta(matrix, transposed=transposed))
    left, sigma, _ = torch.linalg.svd(matrix.double())
    assert abs(float(u.double() @ left[:, -1])) == pytest.approx(1, abs=1e-3)
    assert share == pytest.approx(float(sigma[-1] ** 2 / (sigma.square().sum() / 20)), rel=1e-2)


def test_a_removed_direction_is_found_to_the_last_bit():
    matrix = torch.randn(40, 200).double()
    u = torch.nn.functional.normalize(torch.randn(40).double(), dim=0)
    found, share = least_written(delta((matrix - torch.outer(u, u @ matrix)).float()))
    assert abs(float(found.double() @ u)) == pytest.approx(1, abs=1e-6)
    assert share < 1e-10


@pytest.mark.parametrize("matrix", [torch.zeros(8, 20), torch.full((8, 20), torch.nan)])
def test_a_matrix_that_writes_nothing_has_no_direction(matrix):
    with pytest.raises(NotApplicable):
        least_written(delta(matrix))


def test_too_many_outputs_are_refused(monkeypatch):
    monkeypatch.setattr(written_direction, "_WIDEST", 7)
    with pytest.raises(Unsupported, match="8 outputs"):
        least_written(delta(torch.randn(8, 20)))


def test_a_vector_is_no_matrix():
    nothing = Delta(name="x", kind=DeltaKind.IDENTICAL, shape=(3,), tensors=())
    with pytest.raises(NotApplicable):
        written_along(nothing, torch.ones(3))
