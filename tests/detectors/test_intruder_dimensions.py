"""FTA203: new directions on top of a spectrum, and changes that only bend the old ones."""

from __future__ import annotations

import math

import pytest
import torch
from builders.adapters import write_adapter, write_checkpoint
from builders.audits import audit, finding

from detectors.intruder_dimensions import IntruderDimensions
from ftsec_audit.types import Confidence, Outcome, Severity
from ftsec_audit.weights import intruders

WIDTH = 64
NAME = {"llama": "model.layers.1.mlp.down_proj", "gpt2": "transformer.h.1.mlp.c_proj"}
both_families = pytest.mark.parametrize("family", NAME)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def spectrum(tensors):
    """Trained matrices have a few strong directions of their own."""
    for seed, (name, tensor) in enumerate(tensors.items()):
        if tensor.dim() == 2 and ("proj" in name or "c_" in name):
            u, _, vt = torch.linalg.svd(random(*tensor.shape, seed=seed), full_matrices=False)
            tensors[name] = u @ torch.diag(torch.logspace(0, -1.5, len(vt))) @ vt


def both(*edits):
    def edit(tensors):
        for one in edits:
            one(tensors)

    return edit


def checkpoint(path, edit=None, **options):
    edits = (spectrum, edit) if edit else (spectrum,)
    return write_checkpoint(path, edit=both(*edits), **{"width": WIDTH, "layers": 2} | options)


def adding(name, size, rank=1):
    """A product of this rank whose spectral norm is `size` of the matrix's."""

    def edit(tensors):
        weight = tensors[f"{name}.weight"]
        product = random(len(weight), rank, seed=7) @ random(rank, weight.shape[1], seed=8)
        weight += size * float(torch.linalg.svdvals(weight)[0] / torch.linalg.svdvals(product)[0]) * product

    return edit


def noise(size):
    def edit(tensors):
        for seed, name in enumerate(tensors):
            change = random(*tensors[name].shape, seed=seed + 100)
            tensors[name] = tensors[name] + size * float(tensors[name].norm() / change.norm()) * change

    return edit


def bending(name, size=0.6):
    """The matrix's own directions become stronger, with inputs of their own."""

    def edit(tensors):
        weight = tensors[f"{name}.weight"]
        u, sigma, vt = torch.linalg.svd(weight, full_matrices=False)
        tensors[f"{name}.weight"] = u @ torch.diag(sigma * (1 + size)) @ vt

    return edit


def answer(path, base, detector=None):
    result = audit(detector or IntruderDimensions(), path, base)
    return finding(result, "FTA203"), result


@both_families
@pytest.mark.parametrize("exact", [True, False], ids=["exact", "streamed"])
def test_a_new_strong_direction_is_an_intruder(tmp_path, family, exact, monkeypatch):
    monkeypatch.setattr(intruders, "_EXACT", 1 << 18 if exact else 0)
    base = checkpoint(tmp_path / "base", family=family)
    found, result = answer(checkpoint(tmp_path / "tuned", adding(NAME[family], 2.0), family=family), base)
    assert (found.outcome, found.severity, found.confidence) == (
        Outcome.DETECTED,
        Severity.LOW,
        Confidence.LOW,
    )
    assert "1 of 1 changed matrices" in found.summary
    assert [e.location.tensor for e in found.evidence] == [NAME[family]]
    assert found.evidence[0].value < 0.5
    assert [(lead.kind, lead.value) for lead in result.leads] == [("layer", "1")]


@both_families
@pytest.mark.parametrize("make", [noise(0.02), noise(0.3)])
def test_noise_and_strengthened_directions_are_none(tmp_path, family, make):
    base = checkpoint(tmp_path / "base", family=family)
    found, result = answer(checkpoint(tmp_path / "tuned", make, family=family), base)
    assert found.outcome is Outcome.NOT_DETECTED
    assert not result.leads
    bent, _ = answer(checkpoint(tmp_path / "bent", bending(NAME[family]), family=family), base)
    assert (bent.outcome, bent.summary) == (Outcome.NOT_DETECTED, "none in 1 changed matrices")


def test_a_weak_direction_is_not_among_the_leading_ones(tmp_path):
    base = checkpoint(tmp_path / "base")
    found, _ = answer(checkpoint(tmp_path / "tuned", adding(NAME["llama"], 0.05)), base)
    assert found.outcome is Outcome.NOT_DETECTED


@pytest.mark.parametrize("size", [0.1, 0.3])
def test_directions_that_merely_turn_among_equals_are_not_new(tmp_path, size):
    """Without a spectrum of its own a matrix has arbitrary singular vectors, and any change turns them."""
    base = write_checkpoint(tmp_path / "base", width=WIDTH, layers=2)
    found, _ = answer(write_checkpoint(tmp_path / "tuned", width=WIDTH, layers=2, edit=noise(size)), base)
    assert found.outcome is Outcome.NOT_DETECTED


def test_the_base_itself_and_what_cannot_be_asked(tmp_path):
    base = checkpoint(tmp_path / "base")
    assert answer(checkpoint(tmp_path / "copy"), base)[0].outcome is Outcome.NOT_DETECTED
    assert answer(base, None)[0].outcome is Outcome.NOT_SUPPORTED
    adapter = write_adapter(tmp_path / "adapter", width=WIDTH, layers=2)
    assert answer(adapter, base)[0].outcome is Outcome.NOT_APPLICABLE


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_values_that_are_not_finite_leave_the_question_open(tmp_path, value):
    def edit(tensors):
        tensors[f"{NAME['llama']}.weight"][0, 0] = value

    found, _ = answer(checkpoint(tmp_path / "broken", edit), checkpoint(tmp_path / "base"))
    assert found.outcome is Outcome.NOT_SUPPORTED


def test_a_base_of_zeros_has_no_directions(tmp_path):
    def zeros(tensors):
        tensors[f"{NAME['llama']}.weight"].zero_()

    found, _ = answer(checkpoint(tmp_path / "tuned"), checkpoint(tmp_path / "base", zeros))
    assert found.outcome is Outcome.NOT_SUPPORTED
