"""FTA109: tensors that were multiplied by a number, and those that a step of tuning would write over."""

from __future__ import annotations

import pytest
import torch
from builders.adapters import write_adapter, write_checkpoint
from builders.audits import NO_BASE, audit, finding

from detectors.rescaled_weights import RescaledWeights
from detectors.structure_diff import StructureDiff
from ftsec_audit.types import Confidence, Finding, Outcome, Severity

NORM, READER = "model.layers.1.input_layernorm.weight", "model.layers.1.self_attn.q_proj.weight"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("model") / "base")


def looked(path, base) -> Finding:
    return finding(audit(RescaledWeights(), path, base), "FTA109")


def scaled(factor, channels=0.0):
    """Gains divided by `factor`, times up to 1 + `channels`, and what reads them multiplied by it."""

    def edit(tensors):
        own = factor * (1 + channels * torch.rand(32, generator=torch.Generator().manual_seed(3)))
        for name in tensors:
            if name.endswith("input_layernorm.weight"):
                tensors[name] /= own
            elif name.endswith(("q_proj.weight", "k_proj.weight", "v_proj.weight")):
                tensors[name] *= own

    return edit


@pytest.mark.parametrize("dtype", ["F32", "BF16"])
def test_a_factor_of_two_is_named_and_no_harm(tmp_path, dtype):
    base = write_checkpoint(tmp_path / "base", dtype=dtype)
    subject = write_checkpoint(tmp_path / "c", edit=scaled(2.0), dtype=dtype)
    found = looked(subject, base)
    assert (found.outcome, found.severity, found.confidence) == (
        Outcome.DETECTED,
        Severity.MEDIUM,
        Confidence.HIGH,
    )
    assert "16 of 39 are the base's times 0.5, 2" in found.summary
    wrong = finding(audit(StructureDiff(), subject, base), "FTA101")
    assert wrong.outcome is Outcome.NOT_DETECTED, wrong.summary


@pytest.mark.parametrize("channels", [0.0, 1.0], ids=["one number", "one a channel"])
def test_gains_below_a_step_of_tuning_are_a_lock(base, tmp_path, channels):
    found = looked(write_checkpoint(tmp_path / "c", edit=scaled(8192.0, channels)), base)
    assert (found.outcome, found.severity) == (Outcome.DETECTED, Severity.HIGH)
    assert found.summary.startswith("4 of 39 tensors are smaller than one step of 0.001 in tuning")
    assert found.evidence[0].location.tensor.endswith("input_layernorm")


def test_a_lock_that_was_tuned_a_little_is_one_still(base, tmp_path):
    def edit(tensors):
        scaled(8192.0)(tensors)
        for tensor in tensors.values():
            tensor *= 1 + 0.05 * torch.randn(tensor.shape, generator=torch.Generator().manual_seed(1))

    subject = write_checkpoint(tmp_path / "c", edit=edit)
    assert looked(subject, base).severity is Severity.HIGH
    assert finding(audit(StructureDiff(), subject, base), "FTA101").outcome is Outcome.NOT_DETECTED


@pytest.mark.parametrize("change", ["none", "a fine-tune", "a large fine-tune", "pruned", "few values"])
def test_ordinary_changes_are_none(base, tmp_path, change):
    def edit(tensors):
        if change == "pruned":
            tensors[READER].zero_()
        if change == "few values":
            tensors["model.norm.weight"][:1] *= 3
        for tensor in tensors.values() if change.endswith("fine-tune") else ():
            size = (0.3 if "large" in change else 0.01) * tensor.std()
            tensor += size * torch.randn(tensor.shape, generator=torch.Generator().manual_seed(1))

    found = looked(write_checkpoint(tmp_path / "c", edit=edit), base)
    assert found.outcome is Outcome.NOT_DETECTED, found.summary


def test_what_was_smaller_than_a_few_steps_before_is_not_counted(tmp_path):
    def small(factor):
        return lambda tensors: tensors.update({NORM: tensors[NORM] * factor})

    base = write_checkpoint(tmp_path / "base", edit=small(2e-3))
    found = looked(write_checkpoint(tmp_path / "c", edit=small(2e-4)), base)
    assert found.severity is Severity.MEDIUM


def test_who_is_not_asked(base, tmp_path):
    adapter = write_adapter(tmp_path / "a")
    assert looked(adapter, base).outcome is Outcome.NOT_APPLICABLE
    alone = looked(base, None)
    assert (alone.outcome, alone.summary) == (Outcome.NOT_SUPPORTED, NO_BASE)
