"""FTA102: more than the configuration declares."""

from __future__ import annotations

import pytest
import torch
from builders.adapters import write_adapter, write_checkpoint
from builders.audits import audit, finding

from detectors.undeclared_change import UndeclaredChange
from ftsec_audit.types import Confidence, Outcome, Severity

PREFIX = "base_model.model."


def judged(path, base=None):
    return finding(audit(UndeclaredChange(), path, base), "FTA102")


def adding(name, *shape):
    def edit(tensors):
        tensors[PREFIX + name] = torch.ones(*shape)

    return edit


def test_an_adapter_that_does_what_it_says(tmp_path):
    assert judged(write_adapter(tmp_path / "a")).outcome is Outcome.NOT_DETECTED


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("model.layers.0.mlp.down_proj.weight", (32, 64)),
        ("model.layers.0.input_layernorm.weight", (32,)),
        ("model.layers.0.self_attn.q_proj.bias", (32,)),
        ("score.weight", (2, 32)),
    ],
)
def test_a_tensor_that_nothing_declares(tmp_path, name, shape):
    found = judged(write_adapter(tmp_path / "a", edit=adding(name, *shape)))
    assert (found.outcome, found.severity, found.confidence) == (
        Outcome.DETECTED,
        Severity.HIGH,
        Confidence.HIGH,
    )
    assert found.evidence[0].location.tensor == name.removesuffix(".weight")


def test_factors_on_a_module_that_is_no_target(tmp_path):
    def edit(tensors):
        tensors[f"{PREFIX}model.layers.2.mlp.down_proj.lora_A.weight"] = torch.ones(4, 64)
        tensors[f"{PREFIX}model.layers.2.mlp.down_proj.lora_B.weight"] = torch.ones(32, 4)

    found = judged(write_adapter(tmp_path / "a", edit=edit))
    assert found.outcome is Outcome.DETECTED
    assert [e.location.tensor for e in found.evidence] == ["model.layers.2.mlp.down_proj"]


def test_undeclared_factors_that_do_nothing_are_not_reported(tmp_path):
    def edit(tensors):
        tensors[f"{PREFIX}model.layers.2.mlp.down_proj.lora_A.weight"] = torch.ones(4, 64)
        tensors[f"{PREFIX}model.layers.2.mlp.down_proj.lora_B.weight"] = torch.zeros(32, 4)

    assert judged(write_adapter(tmp_path / "a", edit=edit)).outcome is Outcome.NOT_DETECTED


@pytest.mark.parametrize(
    ("name", "shape", "config"),
    [
        ("score.weight", (2, 32), {"task_type": "SEQ_CLS", "modules_to_save": ["classifier", "score"]}),
        ("score.weight", (2, 32), {"task_type": "SEQ_CLS"}),
        ("pre_classifier.weight", (32, 32), {"task_type": "SEQ_CLS", "modules_to_save": ["classifier"]}),
        ("model.layers.0.self_attn.q_proj.bias", (32,), {"bias": "lora_only"}),
        ("model.layers.0.self_attn.q_proj.bias", (32,), {"bias": "all"}),
        ("model.embed_tokens.weight", (64, 32), {"modules_to_save": ["embed_tokens"]}),
    ],
)
def test_what_is_declared_or_saved_for_the_task_is_no_detection(tmp_path, name, shape, config):
    found = judged(write_adapter(tmp_path / "a", edit=adding(name, *shape), **config))
    assert found.outcome is Outcome.NOT_DETECTED


def test_a_declared_replacement_is_mentioned(tmp_path):
    edit = adding("model.embed_tokens.weight", 64, 32)
    found = judged(write_adapter(tmp_path / "a", edit=edit, modules_to_save=["embed_tokens"]))
    assert "model.embed_tokens" in found.summary


def test_embeddings_saved_undeclared_stay_low_without_a_base(tmp_path):
    found = judged(write_adapter(tmp_path / "a", edit=adding("model.embed_tokens.weight", 70, 32)))
    assert (found.outcome, found.severity, found.confidence) == (
        Outcome.DETECTED,
        Severity.LOW,
        Confidence.LOW,
    )


def test_embeddings_saved_undeclared_and_unchanged_are_no_detection(tmp_path):
    base = write_checkpoint(tmp_path / "base")
    kept = {}
    write_checkpoint(tmp_path / "again", edit=lambda tensors: kept.update(tensors))

    def edit(tensors):
        tensors[f"{PREFIX}model.embed_tokens.weight"] = kept["model.embed_tokens.weight"]

    assert judged(write_adapter(tmp_path / "a", edit=edit), base).outcome is Outcome.NOT_DETECTED


def test_embeddings_changed_undeclared_are_a_fact_with_a_base(tmp_path):
    base = write_checkpoint(tmp_path / "base")
    found = judged(write_adapter(tmp_path / "a", edit=adding("model.embed_tokens.weight", 64, 32)), base)
    assert (found.outcome, found.severity, found.confidence) == (
        Outcome.DETECTED,
        Severity.HIGH,
        Confidence.HIGH,
    )


def test_another_rank_than_declared(tmp_path):
    found = judged(write_adapter(tmp_path / "a", rank=4, r=8))
    assert (found.outcome, found.severity) == (Outcome.DETECTED, Severity.MEDIUM)
    assert found.evidence[0].value == 4
    assert "8 is declared" in found.evidence[0].message


def test_ranks_declared_by_a_pattern(tmp_path):
    path = write_adapter(tmp_path / "a", rank=4, r=8, rank_pattern={"q_proj": 4, "v_proj": 4})
    assert judged(path).outcome is Outcome.NOT_DETECTED


def test_factors_stacked_for_the_parts_of_a_fused_projection(tmp_path):
    path = write_adapter(tmp_path / "a", rank=16, r=8, enable_lora=[True, False, True])
    assert judged(path).outcome is Outcome.NOT_DETECTED


def test_without_a_configuration_there_is_no_answer(tmp_path):
    path = write_adapter(tmp_path / "a")
    (path / "adapter_config.json").unlink()
    assert judged(path).outcome is Outcome.NOT_SUPPORTED


def test_a_checkpoint_declares_nothing(tmp_path):
    assert judged(write_checkpoint(tmp_path / "c")).outcome is Outcome.NOT_APPLICABLE
