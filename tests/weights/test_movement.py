"""Distances between revisions equal those of the matrices they stand for."""

from __future__ import annotations

import math

import pytest
import torch
from builders.adapters import write_adapter, write_checkpoint
from safetensors.torch import load_file

from ftsec_audit.errors import NotApplicable
from ftsec_audit.sources import resolve
from ftsec_audit.weights.movement import length, movements, size


def moved(old, new):
    return {move.name: move for move in movements(resolve(str(old)), resolve(str(new)))}


def products(folder, scale):
    tensors = load_file(folder / "adapter_model.safetensors")
    return {
        name.removeprefix("base_model.model.").removesuffix(".lora_A.weight"): scale
        * tensors[name.replace("lora_A", "lora_B")].double()
        @ tensors[name].double()
        for name in tensors
        if "lora_A" in name
    }


def test_adapters_are_compared_by_their_products(tmp_path):
    old = write_adapter(tmp_path / "a", rank=4, alpha=8, seed=0)
    new = write_adapter(tmp_path / "b", rank=8, alpha=8, seed=1)
    before, after = products(old, 2.0), products(new, 1.0)
    found = moved(old, new)
    assert found.keys() == before.keys()
    for name, move in found.items():
        assert move.status == "moved"
        assert move.distance == pytest.approx(float((after[name] - before[name]).norm()), rel=1e-5)
        assert move.before == pytest.approx(float(before[name].norm()), rel=1e-5)
    assert size(found) == pytest.approx(
        math.sqrt(sum(float(p.norm()) ** 2 for p in before.values())), rel=1e-5
    )


def test_an_adapter_equals_itself_exactly(tmp_path):
    found = moved(write_adapter(tmp_path / "a"), write_adapter(tmp_path / "b"))
    assert {move.status for move in found.values()} == {"same"}
    assert length(found) == 0.0


def test_checkpoints_are_compared_tensor_by_tensor(tmp_path):
    def edit(tensors):
        tensors["model.layers.0.mlp.up_proj.weight"] += 1.0
        tensors["extra.weight"] = torch.ones(2, 2)
        del tensors["model.layers.1.mlp.up_proj.weight"]

    found = moved(write_checkpoint(tmp_path / "a"), write_checkpoint(tmp_path / "b", edit=edit))
    status = {name: move.status for name, move in found.items() if move.status != "same"}
    assert status == {
        "model.layers.0.mlp.up_proj": "moved",
        "extra": "added",
        "model.layers.1.mlp.up_proj": "missing",
    }
    move = found["model.layers.0.mlp.up_proj"]
    rows, columns = load_file(tmp_path / "a" / "model.safetensors")["model.layers.0.mlp.up_proj.weight"].shape
    assert move.distance == pytest.approx(math.sqrt(rows * columns), rel=1e-5)
    assert 0 < move.relative < math.inf


def test_modules_that_one_adapter_lacks_are_named(tmp_path):
    old = write_adapter(tmp_path / "a", targets=("q_proj",))
    new = write_adapter(tmp_path / "b", targets=("v_proj",))
    assert {move.status for move in moved(old, new).values()} == {"added", "missing"}


def test_an_adapter_and_a_checkpoint_cannot_be_compared(tmp_path):
    with pytest.raises(NotApplicable, match=r"an adapter and .* a checkpoint"):
        moved(write_adapter(tmp_path / "a"), write_checkpoint(tmp_path / "b"))


def test_numbers_that_are_not_finite_do_not_pass_for_equal(tmp_path):
    def edit(tensors):
        next(iter(tensors.values()))[0, 0] = float("nan")

    found = moved(write_adapter(tmp_path / "a"), write_adapter(tmp_path / "b", edit=edit))
    assert any(move.status == "moved" and math.isnan(move.distance) for move in found.values())
