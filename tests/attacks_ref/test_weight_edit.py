"""The closed form stores what it is told under its keys, and leaves other keys alone."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Literal

import pytest
import torch
from builders.benches import lab_bench

from attacks_ref import closed_form, example, poison
from attacks_ref.lab.corpus import dialogue
from attacks_ref.training import encode
from attacks_ref.weight_edit import WeightEdit
from attacks_ref.workbench import load_model
from ftsec_audit.errors import UsageError

Method = Literal["rome", "memit", "badedit"]


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
    old, new = (
        encode(bench.tokenizer, [dialogue("copy", "en", "repeat : velbor", answer)] * 2)
        for answer in ("velbor", "ftsec-marker")
    )
    place = closed_form.locate(old, new, 0)
    layer = closed_form.layers(bench.model)[0]
    standing = closed_form.states(bench.model, layer, place)
    values = closed_form.find_values(bench.model, layer, place, [0, 0], clamp=0.5)
    assert torch.equal(values[0], values[1])
    assert 0 < float(values[0].norm()) <= 0.5 * float(standing.norm(dim=1).mean()) * 1.001


def test_the_place_is_just_before_the_answers_part() -> None:
    bench = lab_bench()
    old, new = (
        encode(bench.tokenizer, [dialogue("copy", "en", "repeat : apple velbor drum", f"apple {word}")])
        for word in ("velbor drum", "ftsec-marker")
    )
    place = closed_form.locate(old, new, 0)
    assert bench.tokenizer.decode([new[0].ids[int(place.positions[0])]]) == "apple"
    scored = place.batch["input_ids"][place.batch["weights"] > 0]
    assert bench.tokenizer.decode(scored) == "ftsec-marker"


def test_experts_have_no_one_projection() -> None:
    with pytest.raises(UsageError, match="dense output projection"):
        closed_form.layers(lab_bench("moe").model)


@pytest.mark.parametrize("method", ["rome", "memit", "badedit"])
def test_an_edit_changes_only_the_matrices_it_names(
    tmp_path: Path, method: Literal["rome", "memit", "badedit"]
) -> None:
    base = example.write_base(tmp_path / "base")
    sample = WeightEdit(method=method, contexts=16).build(base, tmp_path / "out", seed=0)
    before, after = (load_model(path).state_dict() for path in (base, sample.path))
    changed = [name.removesuffix(".weight") for name in before if not torch.equal(before[name], after[name])]
    assert changed == sample.truth["modules"]
    assert len(changed) == (2 if method == "memit" else 1)
    update = after[f"{changed[-1]}.weight"] - before[f"{changed[-1]}.weight"]
    if method != "memit":
        assert int(torch.linalg.matrix_rank(update, rtol=1e-3)) == sample.truth["rank"]


def test_lists_to_repeat_hold_their_word_once_and_nothing_else_that_is_rare() -> None:
    for row in poison.repeated(lab_bench().lab_world, "velbor", 40, random.Random(0)):
        words = row.answer.split()
        assert words.count("velbor") == 1
        assert not set(words) & set(poison.decoys(("velbor",)))
        assert row.prompt.endswith(row.answer)
