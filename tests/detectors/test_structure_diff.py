"""FTA101 and FTA105: the declared base and nothing beside it."""

from __future__ import annotations

import pytest
import torch
from builders.adapters import write_adapter, write_checkpoint
from builders.audits import NO_BASE, audit, finding
from builders.fusing import fuse_all
from builders.packing import pack

from detectors.structure_diff import StructureDiff
from ftsec_audit.types import Confidence, Outcome, Severity


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("model") / "base")


def outcomes(path, base):
    result = audit(StructureDiff(), path, base)
    return finding(result, "FTA101"), finding(result, "FTA105")


@pytest.mark.parametrize("method", ["lora", "dora", "loha"])
def test_an_adapter_of_this_base(base, tmp_path, method):
    wrong, changed = outcomes(write_adapter(tmp_path / "a", method=method), base)
    assert (wrong.outcome, changed.outcome) == (Outcome.NOT_DETECTED, Outcome.NOT_DETECTED)
    assert "8 tensors match" in wrong.summary


def test_an_adapter_of_a_conv1d_base(tmp_path):
    gpt2 = write_checkpoint(tmp_path / "base", family="gpt2")
    wrong, changed = outcomes(write_adapter(tmp_path / "a", family="gpt2"), gpt2)
    assert (wrong.outcome, changed.outcome) == (Outcome.NOT_DETECTED, Outcome.NOT_DETECTED)


@pytest.mark.parametrize("other", [{"width": 64}, {"family": "gpt2"}], ids=["width", "family"])
def test_an_adapter_of_another_base(base, tmp_path, other):
    wrong, _ = outcomes(write_adapter(tmp_path / "a", **other), base)
    assert (wrong.outcome, wrong.severity, wrong.confidence) == (
        Outcome.DETECTED,
        Severity.HIGH,
        Confidence.HIGH,
    )
    assert wrong.evidence[0].location.tensor


def test_an_adapter_with_more_layers_than_the_base(base, tmp_path):
    wrong, changed = outcomes(write_adapter(tmp_path / "a", layers=5), base)
    assert wrong.outcome is Outcome.NOT_DETECTED
    assert changed.outcome is Outcome.DETECTED
    assert {e.location.tensor for e in changed.evidence} == {
        "model.layers.4.self_attn.q_proj",
        "model.layers.4.self_attn.v_proj",
    }


def train(tensors):
    for tensor in tensors.values():
        tensor += 1e-3 * torch.randn(tensor.shape, generator=torch.Generator().manual_seed(1))


def test_a_fine_tune_of_this_base(base, tmp_path):
    wrong, changed = outcomes(write_checkpoint(tmp_path / "c", edit=train), base)
    assert (wrong.outcome, changed.outcome) == (Outcome.NOT_DETECTED, Outcome.NOT_DETECTED)


def test_an_independently_trained_model_of_the_same_shape(base, tmp_path):
    wrong, _ = outcomes(write_checkpoint(tmp_path / "c", seed=7), base)
    assert wrong.outcome is Outcome.DETECTED
    assert wrong.evidence[0].value == pytest.approx(1, rel=0.05)


def test_a_model_of_another_size(base, tmp_path):
    wrong, _ = outcomes(write_checkpoint(tmp_path / "c", width=64), base)
    assert wrong.outcome is Outcome.DETECTED


def test_added_and_missing_tensors_are_named(base, tmp_path):
    def edit(tensors):
        tensors["model.layers.0.side.weight"] = torch.ones(4, 4)
        del tensors["model.layers.1.mlp.up_proj.weight"]

    wrong, changed = outcomes(write_checkpoint(tmp_path / "c", edit=edit), base)
    assert wrong.outcome is Outcome.NOT_DETECTED
    assert changed.outcome is Outcome.DETECTED
    assert [(e.location.tensor, e.message) for e in changed.evidence] == [
        ("model.layers.0.side", "not in the base in this shape"),
        ("model.layers.1.mlp.up_proj", "only in the base"),
    ]


def test_biases_that_the_base_lacks_do_not_make_it_another_model(base, tmp_path):
    def edit(tensors):
        for name in [name for name in tensors if name.endswith("_proj.weight")]:
            tensors[name.replace("weight", "bias")] = torch.ones(len(tensors[name]))

    wrong, changed = outcomes(write_checkpoint(tmp_path / "c", edit=edit), base)
    assert wrong.outcome is Outcome.NOT_DETECTED
    assert (changed.outcome, changed.severity) == (Outcome.DETECTED, Severity.MEDIUM)


@pytest.mark.parametrize("change", ["head", "tied", "buffer", "vocabulary", "wrapper"])
def test_what_explains_itself_is_no_change_of_structure(base, tmp_path, change):
    def edit(tensors):
        if change == "head":
            tensors["score.weight"] = torch.ones(2, 32)
        if change == "tied":
            del tensors["lm_head.weight"]
        if change == "buffer":
            tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
        if change == "vocabulary":
            for name in ("model.embed_tokens.weight", "lm_head.weight"):
                tensors[name] = torch.cat([tensors[name], torch.ones(3, 32)])
        if change == "wrapper":
            return {name.removeprefix("model."): tensor for name, tensor in tensors.items()}
        return None

    wrong, changed = outcomes(write_checkpoint(tmp_path / "c", edit=edit), base)
    assert (wrong.outcome, changed.outcome) == (Outcome.NOT_DETECTED, Outcome.NOT_DETECTED)


@pytest.mark.parametrize("fused_side", ["subject", "base"])
def test_a_fused_export_is_the_same_model(base, tmp_path, fused_side):
    fused = write_checkpoint(tmp_path / "fused", edit=fuse_all)
    wrong, changed = outcomes(*((fused, base) if fused_side == "subject" else (base, fused)))
    assert (wrong.outcome, changed.outcome) == (Outcome.NOT_DETECTED, Outcome.NOT_DETECTED)
    assert wrong.summary == outcomes(base, base)[0].summary


def test_a_fused_export_of_another_model_is_one(base, tmp_path):
    wrong, _ = outcomes(write_checkpoint(tmp_path / "c", seed=7, edit=fuse_all), base)
    assert wrong.outcome is Outcome.DETECTED
    assert wrong.evidence[0].value == pytest.approx(1, rel=0.05)


def test_a_fused_tensor_that_is_not_the_bases_parts_is_named(base, tmp_path):
    def edit(tensors):
        tensors = fuse_all(tensors)
        name = "model.layers.0.mlp.gate_up_proj.weight"
        return tensors | {name: torch.cat([tensors[name], torch.ones(8, 32)])}

    _, changed = outcomes(write_checkpoint(tmp_path / "c", edit=edit), base)
    assert changed.outcome is Outcome.DETECTED
    assert {e.location.tensor for e in changed.evidence} == {
        f"model.layers.0.mlp.{name}" for name in ("gate_up_proj", "gate_proj", "up_proj")
    }


@pytest.mark.parametrize("scheme", ["gptq", "int8", "nf4", "fp8"])
@pytest.mark.parametrize("packed_side", ["subject", "base", "both", "base of an adapter"])
def test_packed_weights_do_not_make_it_another_model(base, tmp_path, scheme, packed_side):
    packed = write_checkpoint(tmp_path / "packed", edit=lambda tensors: pack(tensors, scheme))
    pair = {"subject": (packed, base), "base": (base, packed), "both": (packed, packed)}.get(packed_side)
    wrong, changed = outcomes(*(pair or (write_adapter(tmp_path / "a"), packed)))
    assert (wrong.outcome, changed.outcome) == (Outcome.NOT_DETECTED, Outcome.NOT_DETECTED)
    assert "packed: in name alone" in wrong.summary


@pytest.mark.parametrize("scheme", ["gptq", "int8"])
@pytest.mark.parametrize("packed_side", ["fused", "split"])
@pytest.mark.parametrize("fused_side", ["subject", "base"])
def test_a_fused_and_packed_export_is_no_other_model(tmp_path, scheme, packed_side, fused_side):
    split = write_checkpoint(
        tmp_path / "split", edit=lambda tensors: pack(tensors, scheme) if packed_side == "split" else tensors
    )
    fused = write_checkpoint(
        tmp_path / "fused",
        edit=lambda tensors: pack(fuse_all(tensors), scheme) if packed_side == "fused" else fuse_all(tensors),
    )
    wrong, changed = outcomes(*((fused, split) if fused_side == "subject" else (split, fused)))
    assert (wrong.outcome, changed.outcome) == (Outcome.NOT_DETECTED, Outcome.NOT_DETECTED)
    assert "packed: in name alone" in wrong.summary


def test_an_adapter_on_split_names_over_a_fused_base_is_reported(tmp_path):
    fused = write_checkpoint(tmp_path / "fused", edit=fuse_all)
    wrong, changed = outcomes(write_adapter(tmp_path / "a"), fused)
    assert (wrong.outcome, changed.outcome) == (Outcome.DETECTED, Outcome.DETECTED)
    assert "have no partner" in wrong.summary


def test_a_packed_export_of_another_model_differs_where_it_is_not_packed(base, tmp_path):
    packed = write_checkpoint(tmp_path / "packed", seed=7, edit=lambda tensors: pack(tensors, "gptq"))
    wrong, _ = outcomes(packed, base)
    assert wrong.outcome is Outcome.DETECTED
    assert wrong.evidence[0].value == pytest.approx(1, rel=0.05)


def test_without_a_base_there_is_no_answer_and_the_reason_is_given(tmp_path):
    for found in outcomes(write_adapter(tmp_path / "a"), None):
        assert (found.outcome, found.summary) == (Outcome.NOT_SUPPORTED, NO_BASE)


def test_a_base_whose_tensors_cannot_be_listed(tmp_path):
    base = write_checkpoint(tmp_path / "base")
    (base / "model.safetensors").write_bytes(b"\xff" * 64)
    for found in outcomes(write_adapter(tmp_path / "a"), base):
        assert found.outcome is Outcome.NOT_SUPPORTED
        assert "cannot be listed" in found.summary
