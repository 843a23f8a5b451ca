"""FTA205: one direction projected out of the writers, with the parent and without, and what looks like it."""

from __future__ import annotations

import math

import pytest
import torch
from builders.adapters import write_adapter, write_checkpoint
from builders.audits import audit, finding

from detectors.direction_ablation import DirectionAblation
from ftsec_audit.types import Confidence, Outcome, Severity
from ftsec_audit.weights import written_direction

WIDTH, LAYERS = 48, 4
WRITERS = {"llama": ("o_proj", "down_proj"), "gpt2": ("attn.c_proj", "mlp.c_proj")}
both_families = pytest.mark.parametrize("family", WRITERS)


def checkpoint(path, edit=None, **options):
    return write_checkpoint(path, edit=edit, **{"width": WIDTH, "layers": LAYERS} | options)


def direction(seed=0):
    u = torch.randn(WIDTH, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return u / u.norm()


def ablating(family="llama", *, strength=1.0, layers=range(LAYERS), each=False, u=None):
    def edit(tensors):
        for name, tensor in tensors.items():
            layer = next((int(part) for part in name.split(".") if part.isdecimal()), None)
            if layer not in layers or not name.removesuffix(".weight").endswith(WRITERS[family]):
                continue
            one = u if u is not None else direction(layer if each else 0)
            matrix = tensor.double().mT if family == "gpt2" else tensor.double()
            matrix = matrix - strength * torch.outer(one, one @ matrix)
            tensors[name] = (matrix.mT if family == "gpt2" else matrix).float()

    return edit


def training(size, seed=1):
    def edit(tensors):
        generator = torch.Generator().manual_seed(seed)
        for name, tensor in tensors.items():
            change = torch.randn(tensor.shape, generator=generator)
            if tensor.dim() == 2:
                change += (
                    3
                    * torch.randn(len(tensor), 1, generator=generator)
                    * torch.randn(1, tensor.shape[1], generator=generator)
                )
            tensors[name] = tensor + size * float(tensor.norm()) * change / change.norm()

    return edit


def both(*edits):
    def edit(tensors):
        for one in edits:
            one(tensors)

    return edit


def answer(path, base=None, detector=None):
    return finding(audit(detector or DirectionAblation(), path, base), "FTA205")


@both_families
@pytest.mark.parametrize("strength", [0.3, 1.0, 1.5])
@pytest.mark.parametrize("dtype", ["F32", "BF16"])
def test_an_ablation_of_any_strength_is_a_fact_with_the_base(tmp_path, family, strength, dtype):
    def rounded(tensors):
        for name, tensor in tensors.items():
            tensors[name] = tensor.bfloat16().float()

    options = {"family": family, "dtype": dtype}
    base = checkpoint(tmp_path / "base", rounded, **options)
    path = checkpoint(tmp_path / "ablated", both(rounded, ablating(family, strength=strength)), **options)
    found = answer(path, base)
    assert (found.outcome, found.severity, found.confidence) == (
        Outcome.DETECTED,
        Severity.HIGH,
        Confidence.HIGH,
    )
    assert "8 writers" in found.summary
    assert f"{1 - (1 - strength) ** 2:.0%}" in found.summary
    assert found.evidence[0].value > 0.99


@both_families
def test_a_complete_ablation_shows_without_the_base(tmp_path, family):
    found = answer(checkpoint(tmp_path / "ablated", ablating(family), family=family))
    assert (found.outcome, found.confidence) == (Outcome.DETECTED, Confidence.LOW)
    assert "3 pairs of neighbouring layers" in found.summary
    assert found.evidence[0].value < 1e-6


@both_families
@pytest.mark.parametrize("edit", [None, training(0.05), ablating("llama", strength=0.5)])
def test_without_the_base_anything_else_is_not_seen(tmp_path, family, edit):
    found = answer(checkpoint(tmp_path / "model", edit, family=family))
    assert (found.outcome, found.confidence) == (Outcome.NOT_DETECTED, Confidence.LOW)
    assert "only a complete ablation" in found.summary


@pytest.mark.parametrize(("size", "expected"), [(0.1, Outcome.DETECTED), (1.0, Outcome.NOT_DETECTED)])
def test_training_on_top_hides_it_only_when_it_is_larger(tmp_path, size, expected):
    path = checkpoint(tmp_path / "both", both(ablating(), training(size)))
    found = answer(path, checkpoint(tmp_path / "base"))
    assert found.outcome is expected
    if expected is Outcome.DETECTED:
        assert found.confidence is Confidence.LOW


def test_a_direction_of_its_own_in_every_layer_is_less_of_a_fact(tmp_path):
    found = answer(checkpoint(tmp_path / "each", ablating(each=True)), checkpoint(tmp_path / "base"))
    assert (found.outcome, found.confidence) == (Outcome.DETECTED, Confidence.LOW)


def test_some_layers_are_enough(tmp_path):
    path = checkpoint(tmp_path / "some", ablating(layers=(1, 2)))
    assert answer(path, checkpoint(tmp_path / "base")).outcome is Outcome.DETECTED
    one = checkpoint(tmp_path / "one", ablating(layers=(1,)))
    assert answer(one, checkpoint(tmp_path / "base")).outcome is Outcome.NOT_DETECTED


def shrinking(tensors):
    for name, tensor in tensors.items():
        tensors[name] = 0.97 * tensor


def merging(tensors):
    generator = torch.Generator().manual_seed(3)
    written = torch.randn(WIDTH, 1, generator=generator)
    for name, tensor in tensors.items():
        if name.removesuffix(".weight").endswith(WRITERS["llama"]):
            product = written @ torch.randn(1, tensor.shape[1], generator=generator)
            tensors[name] = tensor + 0.3 * float(tensor.norm()) * product / product.norm()


@pytest.mark.parametrize("edit", [training(0.01), training(0.3), shrinking, merging])
def test_what_does_not_follow_the_base_is_no_removal(tmp_path, edit):
    found = answer(checkpoint(tmp_path / "tuned", edit), checkpoint(tmp_path / "base"))
    assert found.outcome is Outcome.NOT_DETECTED
    assert "8 of 8 writers changed" in found.summary


@pytest.mark.parametrize("with_base", [True, False])
def test_centred_writers_are_no_ablation(tmp_path, with_base):
    mean = torch.full((WIDTH,), WIDTH**-0.5, dtype=torch.float64)
    path = checkpoint(tmp_path / "centred", ablating(u=mean))
    base = checkpoint(tmp_path / "base") if with_base else None
    assert answer(path, base).outcome is Outcome.NOT_DETECTED


def test_what_the_base_does_not_write_either_was_not_removed(tmp_path):
    base = checkpoint(tmp_path / "base", ablating())
    path = checkpoint(tmp_path / "tuned", both(ablating(), training(1e-5)))
    assert answer(path).outcome is Outcome.DETECTED
    assert answer(path, base).outcome is Outcome.NOT_DETECTED


def test_the_base_itself_and_what_is_no_checkpoint(tmp_path):
    base = checkpoint(tmp_path / "base")
    same = answer(checkpoint(tmp_path / "copy"), base)
    assert (same.outcome, same.confidence) == (Outcome.NOT_DETECTED, Confidence.MEDIUM)
    adapter = write_adapter(tmp_path / "adapter", width=WIDTH, targets=("o_proj", "down_proj"))
    assert answer(adapter, base).outcome is Outcome.NOT_APPLICABLE


def damaged(value):
    def edit(tensors):
        for name in tensors:
            if "proj" in name:
                tensors[name][...] = value

    return edit


@pytest.mark.parametrize("value", [math.nan, math.inf, 0.0])
@pytest.mark.parametrize("with_base", [True, False])
def test_damaged_writers_leave_the_question_open(tmp_path, value, with_base):
    path = checkpoint(tmp_path / "damaged", damaged(value))
    found = answer(path, checkpoint(tmp_path / "base") if with_base else None)
    expected = {Outcome.NOT_SUPPORTED} | ({Outcome.NOT_DETECTED} if value == 0 and with_base else set())
    assert found.outcome in expected


def test_writers_of_unknown_names_leave_the_question_open(tmp_path):
    def renamed(tensors):
        return {name.replace("down_proj", "zig").replace("o_proj", "zag"): t for name, t in tensors.items()}

    assert answer(checkpoint(tmp_path / "odd", renamed)).outcome is Outcome.NOT_SUPPORTED


def test_wide_models_are_not_asked_without_a_base(tmp_path, monkeypatch):
    monkeypatch.setattr(written_direction, "_WIDEST", WIDTH - 1)
    found = answer(checkpoint(tmp_path / "ablated", ablating()))
    assert found.outcome is Outcome.NOT_SUPPORTED
