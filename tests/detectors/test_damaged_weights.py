"""FTA103 and FTA104: readable, finite, and doing something."""

from __future__ import annotations

import math

import pytest
from builders.adapters import write_adapter, write_checkpoint
from builders.audits import audit, finding

from detectors.damaged_weights import DamagedWeights
from ftsec_audit.types import Confidence, Outcome, Severity


def outcomes(path, base=None):
    result = audit(DamagedWeights(), path, base)
    return finding(result, "FTA103"), finding(result, "FTA104")


def filling(part, value):
    def edit(tensors):
        for name, tensor in tensors.items():
            if part in name:
                tensor.fill_(value)

    return edit


def test_an_intact_adapter(tmp_path):
    damaged, untrained = outcomes(write_adapter(tmp_path / "a"))
    assert (damaged.outcome, untrained.outcome) == (Outcome.NOT_DETECTED, Outcome.NOT_DETECTED)


@pytest.mark.parametrize("value", [math.nan, math.inf], ids=str)
def test_values_that_are_not_finite_are_located(tmp_path, value):
    damaged, untrained = outcomes(
        write_adapter(tmp_path / "a", edit=filling("layers.2.self_attn.v_proj", value))
    )
    assert (damaged.outcome, damaged.severity, damaged.confidence) == (
        Outcome.DETECTED,
        Severity.HIGH,
        Confidence.HIGH,
    )
    assert [e.location.tensor for e in damaged.evidence] == ["model.layers.2.self_attn.v_proj"]
    assert untrained.outcome is Outcome.NOT_DETECTED


def test_an_adapter_of_nothing_but_nan(tmp_path):
    damaged, untrained = outcomes(write_adapter(tmp_path / "a", edit=filling("", math.nan)))
    assert damaged.outcome is Outcome.DETECTED
    assert "8 of 8" in damaged.summary
    assert untrained.outcome is not Outcome.DETECTED


def test_an_adapter_whose_every_lora_b_is_zero(tmp_path):
    damaged, untrained = outcomes(write_adapter(tmp_path / "a", edit=filling("lora_B", 0.0)))
    assert damaged.outcome is Outcome.NOT_DETECTED
    assert (untrained.outcome, untrained.severity) == (Outcome.DETECTED, Severity.LOW)
    assert "no-op" in untrained.summary
    assert untrained.evidence[0].value == 8


def test_one_trained_module_is_enough_not_to_be_a_no_op(tmp_path):
    _, untrained = outcomes(write_adapter(tmp_path / "a", edit=filling("q_proj.lora_B", 0.0)))
    assert untrained.outcome is Outcome.NOT_DETECTED


@pytest.mark.parametrize("keep", [4, 100, -1000])
def test_a_truncated_file(tmp_path, keep):
    path = write_adapter(tmp_path / "a") / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    damaged, untrained = outcomes(path.parent)
    assert (damaged.outcome, damaged.confidence) == (Outcome.DETECTED, Confidence.HIGH)
    assert untrained.outcome is not Outcome.DETECTED


def test_a_damaged_checkpoint_with_its_base(tmp_path):
    base = write_checkpoint(tmp_path / "base")
    damaged, untrained = outcomes(
        write_checkpoint(tmp_path / "c", edit=filling("layers.1.mlp.up_proj", math.nan)), base
    )
    assert [e.location.tensor for e in damaged.evidence] == ["model.layers.1.mlp.up_proj"]
    assert untrained.outcome is Outcome.NOT_APPLICABLE


def test_the_list_of_damaged_tensors_is_bounded(tmp_path):
    result = audit(DamagedWeights(shown=3), write_adapter(tmp_path / "a", edit=filling("", math.nan)))
    assert len(finding(result, "FTA103").evidence) == 3
