"""FTA208: an update that takes alignment back is told from one that goes any other way."""

from __future__ import annotations

import pytest
import torch
from builders.adapters import write_adapter, write_checkpoint
from builders.audits import NO_BASE, audit, finding
from safetensors.torch import load_file, save_file

from detectors.safety_subspace import SafetySubspace
from ftsec_audit import api
from ftsec_audit.types import Confidence, Outcome, Severity


def moved(seed, size=0.01):
    """Every matrix moved at random."""

    def edit(tensors):
        generator = torch.Generator().manual_seed(seed)
        for name in sorted(tensors):
            step = torch.randn(tensors[name].shape, generator=generator)
            tensors[name] = tensors[name] + (size * step if tensors[name].dim() == 2 else 0)

    return edit


aligned = moved(1)


def undone(share, noise=0.02):
    """Aligned, then back by a share of the way, under a larger random change."""

    def edit(tensors):
        before = {name: tensor.clone() for name, tensor in tensors.items()}
        aligned(tensors)
        back = {name: share * (before[name] - tensor) for name, tensor in tensors.items()}
        moved(2, noise)(tensors)
        for name in tensors:
            tensors[name] = tensors[name] + back[name]

    return edit


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def models(request, tmp_path_factory):
    """(family, parent, base)"""
    root = tmp_path_factory.mktemp("models")
    parent = write_checkpoint(root / "parent", family=request.param)
    return request.param, parent, write_checkpoint(root / "base", family=request.param, edit=aligned)


def answer(path, base, parent):
    return finding(audit(SafetySubspace(), path, base, parent=parent), "FTA208")


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_going_back_is_seen_under_a_larger_change(tmp_path, models, share):
    family, parent, base = models
    path = write_checkpoint(tmp_path / "subject", family=family, edit=undone(share))
    found = answer(path, base, parent)
    assert (found.outcome, found.severity, found.confidence) == (
        Outcome.DETECTED,
        Severity.MEDIUM,
        Confidence.LOW,
    )
    assert found.evidence[0].value > 3
    assert "LoX" in found.summary


@pytest.mark.parametrize("share", [0.0, -0.3, -1.0], ids=["elsewhere", "further", "far further"])
def test_other_ways_are_no_accusation(tmp_path, models, share):
    family, parent, base = models
    path = write_checkpoint(tmp_path / "subject", family=family, edit=undone(share))
    found = answer(path, base, parent)
    assert (found.outcome, found.confidence) == (Outcome.NOT_DETECTED, Confidence.LOW)


def test_an_adapter_that_goes_back_is_seen(tmp_path, models):
    family, parent, base = models
    before, after = (load_file(path / "model.safetensors") for path in (parent, base))

    def edit(tensors):
        for name in [name for name in tensors if name.endswith("lora_A.weight")]:
            module = name.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
            back = before[f"{module}.weight"] - after[f"{module}.weight"]
            u, s, vt = torch.linalg.svd(back.mT if family == "gpt2" else back, full_matrices=False)
            rank = len(tensors[name])
            tensors[name] = s[:rank, None] * vt[:rank]
            tensors[name.replace("lora_A", "lora_B")] = u[:, :rank]

    found = answer(write_adapter(tmp_path / "adapter", family=family, edit=edit), base, parent)
    assert found.outcome is Outcome.DETECTED
    plain = answer(write_adapter(tmp_path / "plain", family=family), base, parent)
    assert plain.outcome is Outcome.NOT_DETECTED


def test_without_a_parent_it_is_not_asked(tmp_path, models):
    family, _, base = models
    path = write_checkpoint(tmp_path / "subject", family=family, edit=undone(1.0))
    assert answer(path, base, None).outcome is Outcome.NOT_APPLICABLE
    assert answer(path, None, None).outcome is Outcome.NOT_APPLICABLE


def test_with_a_parent_and_no_base_there_is_no_answer(tmp_path, models):
    family, parent, _ = models
    path = write_checkpoint(tmp_path / "subject", family=family, edit=undone(1.0))
    found = answer(path, None, parent)
    assert (found.outcome, found.summary) == (Outcome.NOT_SUPPORTED, NO_BASE)


def test_a_parent_under_other_names_is_the_same(tmp_path, models):
    family, parent, base = models
    path = write_checkpoint(tmp_path / "subject", family=family, edit=undone(1.0))

    def renamed(tensors):
        return {
            name.removeprefix("model.").removeprefix("transformer."): value for name, value in tensors.items()
        }

    other = write_checkpoint(tmp_path / "parent", family=family, edit=renamed)
    assert answer(path, base, other).summary == answer(path, base, parent).summary


def test_a_parent_of_another_shape_gives_no_answer(tmp_path, models):
    family, _, base = models
    path = write_checkpoint(tmp_path / "subject", family=family, edit=undone(1.0))
    other = write_checkpoint(tmp_path / "parent", family=family, width=16)
    assert answer(path, base, other).outcome is Outcome.NOT_SUPPORTED


def test_a_parent_that_is_the_base_gives_no_answer(tmp_path, models):
    family, _, base = models
    path = write_checkpoint(tmp_path / "subject", family=family, edit=undone(1.0))
    assert answer(path, base, base).outcome is Outcome.NOT_SUPPORTED


def test_a_quantised_parent_gives_no_answer(tmp_path, models):
    family, parent, base = models
    path = write_checkpoint(tmp_path / "subject", family=family, edit=undone(1.0))
    other = write_checkpoint(tmp_path / "parent", family=family)
    tensors = load_file(parent / "model.safetensors")
    quantised = {name: (100 * tensor).to(torch.int8) for name, tensor in tensors.items()}
    save_file(quantised, other / "model.safetensors")
    assert answer(path, base, other).outcome is Outcome.NOT_SUPPORTED


def test_numbers_that_are_none_give_no_answer(tmp_path, models):
    family, parent, base = models

    def broken(tensors):
        undone(1.0)(tensors)
        for name in [name for name in tensors if name.endswith(("down_proj.weight", "mlp.c_proj.weight"))]:
            tensors[name][0, 0] = float("nan")

    path = write_checkpoint(tmp_path / "subject", family=family, edit=broken)
    assert answer(path, base, parent).outcome is Outcome.NOT_SUPPORTED


def test_the_base_itself_went_nowhere(models):
    _, parent, base = models
    found = answer(base, base, parent)
    assert found.outcome is Outcome.NOT_DETECTED
    assert "no matrix" in found.summary


def test_a_scan_is_told_the_parent(tmp_path, models):
    family, parent, base = models
    path = write_checkpoint(tmp_path / "subject", family=family, edit=undone(1.0))
    options = {"base": str(base), "select": ["FTA208"], "offline": True}
    report = api.scan(str(path), parent=str(parent), **options)
    assert [found.rule for found in report.detected()] == ["FTA208"]
    assert not api.scan(str(path), **options).detected()
