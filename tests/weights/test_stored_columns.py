"""Output rows of a weight that the file keeps as (in, out)."""

from __future__ import annotations

import pytest
import torch
from builders.adapters import write_checkpoint
from builders.audits import subject

from ftsec_audit.errors import NotApplicable
from ftsec_audit.weights import moments, stored
from ftsec_audit.weights.moments import Held
from ftsec_audit.weights.stored_columns import columns
from ftsec_audit.weights.stream import deltas

NAME = "transformer.h.1.attn.c_attn"


def changed(tmp_path, with_base=True):
    def edit(tensors):
        tensors[f"{NAME}.weight"][:, 90] += 1

    base = write_checkpoint(tmp_path / "base", family="gpt2")
    path = write_checkpoint(tmp_path / "tuned", family="gpt2", edit=edit)
    found = deltas(subject(path, base if with_base else None))
    return next(delta for delta in found if delta.name == NAME)


@pytest.mark.parametrize("block", [200, 1 << 17])
def test_rows_of_a_transposed_change_are_its_outputs(tmp_path, monkeypatch, block):
    monkeypatch.setattr(stored, "BLOCK_ELEMENTS", block)
    monkeypatch.setattr(moments, "BLOCK_ELEMENTS", block)
    delta = changed(tmp_path)
    assert delta.shape == (96, 32)
    after, before = delta.rows([90, 3, 90])
    assert after.shape == before.shape == (3, 32)
    difference = (after - before).double()
    assert difference.norm(dim=1).tolist() == pytest.approx(delta.row_norms()[[90, 3, 90]].tolist())
    assert torch.allclose(difference[0], torch.ones(32).double(), atol=1e-6)
    assert difference[1].eq(0).all()
    assert delta.changed_rows().indices.tolist() == [90]
    stored_after, _ = delta.stored_rows([31])
    assert stored_after.shape == (1, 96)


def test_without_a_base_there_is_nothing_before(tmp_path):
    after, before = changed(tmp_path, with_base=False).rows([0])
    assert after.shape == (1, 32)
    assert before is None


@pytest.mark.parametrize("index", [-1, 96])
def test_an_output_that_is_not_there_is_an_error(tmp_path, index):
    with pytest.raises(IndexError, match=str(index)):
        changed(tmp_path).rows([index])


def test_an_empty_matrix_has_columns_of_no_length():
    after, before = columns(Held(torch.zeros(0, 4)), [1, 2])
    assert after.shape == (2, 0)
    assert before is None


def test_what_did_not_change_has_no_rows(tmp_path):
    base = write_checkpoint(tmp_path / "base", family="gpt2")
    same = next(iter(deltas(subject(base, base))))
    with pytest.raises(NotApplicable):
        same.rows([0])
