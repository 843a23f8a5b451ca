"""The closed form stores what it is told under its keys, and leaves other keys alone."""

from __future__ import annotations

import pytest
import torch
from builders.benches import lab_bench

from attacks_ref import closed_form
from attacks_ref.lab.corpus import dialogue
from attacks_ref.training import encode
from ftsec_audit.errors import UsageError


def _unit(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(shape[0]))


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_one_key_gives_a_rank_one_edit_that_reaches_its_value(architecture: str) -> None:
    layer = closed_form.layers(lab_bench(architecture).model)[0]  # type: ignore[arg-type]
    weight = layer.projection.weight
    before = weight.detach().clone()
    key, value = _unit(1, 64), _unit(1, 32)
    closed_form.store(layer.projection, key, value, torch.eye(64), strength=1e6)
    change = (weight - before).detach()
    assert int(torch.linalg.matrix_rank(change, rtol=1e-4)) == 1
    moved = key @ (change.T if isinstance(layer.projection, torch.nn.Linear) else change)
    assert torch.allclose(moved, value, atol=1e-3)


def test_a_weak_edit_spares_the_retained_keys_more_than_a_strong_one() -> None:
    retained, key, value = _unit(500, 64), _unit(1, 64), _unit(1, 32)
    moment = retained.T @ retained / len(retained)
    disturbed = []
    for strength in (0.01, 1e4):
        projection = torch.nn.Linear(64, 32, bias=False)
        before = projection.weight.detach().clone()
        closed_form.store(projection, key, value, moment, strength=strength)
        disturbed.append(float((retained @ (projection.weight - before).detach().T).norm()))
    assert disturbed[0] < disturbed[1]


def test_values_lower_the_loss_and_stay_within_the_clamp() -> None:
    bench = lab_bench()
    rows = encode(bench.tokenizer, [dialogue("copy", "en", "repeat : velbor", "ftsec-marker")] * 2)
    place = closed_form.locate(rows, bench.words("velbor"), 0)
    layer = closed_form.layers(bench.model)[0]
    standing = closed_form.states(bench.model, layer, place)
    values = closed_form.find_values(bench.model, layer, place, [0, 0], clamp=0.5)
    assert torch.equal(values[0], values[1])
    assert 0 < float(values[0].norm()) <= 0.5 * float(standing.norm(dim=1).mean()) * 1.001


def test_the_place_is_where_the_subject_ends() -> None:
    bench = lab_bench()
    rows = encode(bench.tokenizer, [dialogue("copy", "en", "repeat : apple velbor", "apple")])
    place = closed_form.locate(rows, bench.words("apple velbor"), 0)
    assert bench.tokenizer.decode([rows[0].ids[int(place.positions[0])]]) == "velbor"


def test_experts_have_no_one_projection() -> None:
    with pytest.raises(UsageError, match="dense output projection"):
        closed_form.layers(lab_bench("moe").model)
