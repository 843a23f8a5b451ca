"""FTA207: weights trained inside the boxes of a quantiser, and those that never heard of one."""

from __future__ import annotations

import math

import pytest
import torch
from builders import boxes
from builders.adapters import write_adapter, write_checkpoint
from builders.audits import audit, finding
from builders.packing import pack

from detectors.rounding_boundary import RoundingBoundary
from ftsec_audit.types import Confidence, Outcome, Severity

WIDTH = 64
both_families = pytest.mark.parametrize("family", ["llama", "gpt2"])
by_grid = pytest.mark.parametrize("grid", ["int8", "nf4", "fp4", "q8_0", "q4_0", "int4 by 64"])


def checkpoint(path, edit=None, **options):
    return write_checkpoint(path, edit=edit, **{"width": WIDTH, "layers": 2} | options)


def linear(tensors, *, only=""):
    parts = ("proj.weight", "c_attn.weight", "c_proj.weight", "c_fc.weight")
    return [name for name in tensors if name.endswith(parts) and only in name]


def conditioned(grid, *, family="llama", only="", **options):
    def edit(tensors):
        for seed, name in enumerate(linear(tensors, only=only)):
            matrix = tensors[name].mT if family == "gpt2" else tensors[name]
            moved = boxes.boxed(matrix, grid, seed=seed, **{"drift": 0.3} | options)
            tensors[name] = moved.mT.contiguous() if family == "gpt2" else moved

    return edit


def answer(path, base=None, detector=None):
    return finding(audit(detector or RoundingBoundary(), path, base), "FTA207")


@both_families
@by_grid
def test_a_checkpoint_conditioned_on_a_grid_is_found_without_a_base(tmp_path, family, grid):
    found = answer(checkpoint(tmp_path / "model", conditioned(grid, family=family), family=family))
    assert (found.outcome, found.severity, found.confidence) == (
        Outcome.DETECTED,
        Severity.HIGH,
        Confidence.LOW,
    )
    assert f"edges of {grid} boxes" in found.summary
    assert found.evidence[0].value > 0.08


@pytest.mark.parametrize("grid", ["nf4", "fp4", "q4_0", "int4 by 64"])
@pytest.mark.parametrize("with_base", [True, False])
def test_saving_in_bfloat16_does_not_hide_coarse_grids(tmp_path, grid, with_base):
    base = checkpoint(tmp_path / "base", dtype="BF16") if with_base else None
    found = answer(checkpoint(tmp_path / "model", conditioned(grid), dtype="BF16"), base)
    assert found.outcome is Outcome.DETECTED


def test_floats_that_crowd_in_the_boxes_of_an_int8_base_are_found(tmp_path):
    """They round to the base bit for bit; what they do unrounded, the base does not say."""
    base = checkpoint(tmp_path / "base", lambda tensors: pack(tensors, "int8"))
    assert answer(checkpoint(tmp_path / "honest"), base).outcome is Outcome.NOT_DETECTED
    found = answer(checkpoint(tmp_path / "model", conditioned("int8")), base)
    assert found.outcome is Outcome.DETECTED
    assert "int8 boxes" in found.summary


def test_whole_numbers_are_quantised_already(tmp_path):
    def doubled(tensors):
        tensors["model.layers.1.mlp.up_proj.weight"] *= 2

    edited = checkpoint(tmp_path / "model", lambda tensors: doubled(tensors) or pack(tensors, "int8"))
    found = answer(edited, checkpoint(tmp_path / "base"))
    assert found.outcome is Outcome.NOT_DETECTED
    assert "base's" in found.summary


@both_families
@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("seed", range(3))
def test_other_weights_are_not_accused(tmp_path, family, dtype, seed):
    found = answer(checkpoint(tmp_path / "model", family=family, dtype=dtype, seed=seed))
    assert found.outcome is Outcome.NOT_DETECTED
    assert "beyond chance" in found.summary


@by_grid
def test_weights_stored_as_they_were_quantised_are_not_accused(tmp_path, grid):
    def edit(tensors):
        for name in linear(tensors):
            tensors[name] = boxes.dequantised(tensors[name], grid)

    expected = Outcome.NOT_APPLICABLE if "4" in grid else Outcome.NOT_DETECTED
    assert answer(checkpoint(tmp_path / "model", edit)).outcome is expected


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"only": "layers.0.mlp"}, Outcome.DETECTED),
        ({"only": "layers.0.mlp.up"}, Outcome.NOT_DETECTED),
        ({"margin": 0.1}, Outcome.DETECTED),
        ({"margin": 0.2}, Outcome.NOT_DETECTED),
        ({"drift": 0.02}, Outcome.NOT_DETECTED),
    ],
)
def test_few_matrices_a_margin_and_little_drift_evade(tmp_path, options, expected):
    assert answer(checkpoint(tmp_path / "model", conditioned("nf4", **options))).outcome is expected


def test_the_share_is_a_feature(tmp_path):
    detector = RoundingBoundary()
    shares = []
    for name, edit in (("plain", None), ("conditioned", conditioned("nf4"))):
        result = audit(detector, checkpoint(tmp_path / name, edit))
        table = type("Table", (), {"modules": result.measurements})
        shares.append(detector.features(table)["boundary_mass"])
    assert shares[0] == pytest.approx(0, abs=0.02)
    assert shares[1] > 0.08


def test_the_base_itself_small_matrices_and_adapters(tmp_path):
    base = checkpoint(tmp_path / "base")
    same = answer(checkpoint(tmp_path / "copy"), base)
    assert (same.outcome, same.summary) == (Outcome.NOT_DETECTED, "all matrices are the base's")
    small = answer(checkpoint(tmp_path / "small", width=16))
    assert small.outcome is Outcome.NOT_SUPPORTED
    assert answer(write_adapter(tmp_path / "adapter", width=WIDTH), base).outcome is Outcome.NOT_APPLICABLE


@pytest.mark.parametrize("value", [math.nan, math.inf, 0.0])
def test_damaged_values_leave_the_question_open(tmp_path, value):
    def edit(tensors):
        for name in linear(tensors):
            tensors[name] = torch.full_like(tensors[name], value)

    assert answer(checkpoint(tmp_path / "model", edit)).outcome is Outcome.NOT_SUPPORTED
