"""Transforms that change the update change what they say, by as much as they say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from builders.lab import random_adapter, tiny_base
from builders.updates import by_audit, by_peft, logits
from hypothesis import given, settings
from hypothesis import strategies as st

from attacks_ref.recipe import Recipe
from attacks_ref.sample import Truth, finish
from attacks_ref.stealth.biases import BiasShift
from attacks_ref.stealth.chain import measured_again, transformed
from attacks_ref.stealth.concatenation import Concatenation
from attacks_ref.stealth.continuation import CleanSteps
from attacks_ref.stealth.gauge import Gauge, RankPadding
from attacks_ref.stealth.magnitude import Magnitude
from attacks_ref.stealth.norms import NormMatching, update_norms
from attacks_ref.stealth.orthogonal import Orthogonal
from attacks_ref.stealth.rounding import Merged, Storage, matrices, rounded
from attacks_ref.stealth.tensors import read_adapter
from attacks_ref.workbench import load_model, load_sample
from ftsec_audit.errors import UsageError

BOUNDS: dict[Storage, float] = {"bfloat16": 2**-8, "int8": 0.5 / 127, "int4": 0.5 / 7, "nf4": 0.16}
"""Largest error of one stored weight, as a share of the largest in its row or block."""


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_base(tmp_path_factory.mktemp("base"), request.param)


@pytest.fixture
def sample(base: Path, tmp_path: Path) -> Path:
    return random_adapter(base, tmp_path / "sample", Recipe(rank=4))


@pytest.mark.parametrize("transform", [BiasShift(), Magnitude(stretch=1.1)], ids=lambda t: t.label)
def test_an_undeclared_channel_changes_the_logits(base: Path, sample: Path, transform: object) -> None:
    said = logits(base, sample)
    assert isinstance(transform, (BiasShift, Magnitude))
    transform.apply(base, sample, seed=0)
    assert not torch.allclose(said, logits(base, sample), atol=1e-3)


def test_biases_are_declared_only_where_the_base_has_none(base: Path, sample: Path) -> None:
    BiasShift().apply(base, sample, seed=0)
    tensors, config = read_adapter(sample)
    own = "gpt2" in load_model(base).config.model_type
    assert config["bias"] == "none"
    assert bool(config["lora_bias"]) is not own
    assert any(name.endswith("base_layer.bias" if own else "lora_B.bias") for name in tensors)


def test_the_base_s_top_directions_are_left_out(base: Path, sample: Path) -> None:
    Orthogonal(directions=3).apply(base, sample, seed=0)
    weights = load_model(base).state_dict()
    updates = by_peft(base, sample)
    for name, update in updates.items():
        if float(update.abs().max()) > 1e-3:
            left, _, right = torch.linalg.svd(weights[name])
            assert float((left[:, :3].T @ update).abs().max()) < 1e-5
            assert float((update @ right[:3].T).abs().max()) < 1e-5


def test_every_module_gets_the_other_s_norm(base: Path, sample: Path, tmp_path: Path) -> None:
    like = random_adapter(base, tmp_path / "like", Recipe(rank=2, method="rslora"), seed=5, size=0.03)
    transform = NormMatching(like=str(like))
    assert str(tmp_path) not in transform.label
    transform.apply(base, sample, seed=0)
    wanted = update_norms(*read_adapter(like))
    assert update_norms(*read_adapter(sample)) == pytest.approx(wanted, rel=1e-4)
    dense = {name: float(delta.norm()) for name, delta in by_audit(base, sample).items()}
    assert dense == pytest.approx(wanted, rel=1e-4)


def test_a_concatenation_is_the_sum(base: Path, sample: Path, tmp_path: Path) -> None:
    other = random_adapter(base, tmp_path / "other", Recipe(rank=3, alpha=5, method="rslora"), seed=2)
    one, two = by_peft(base, sample), by_peft(base, other)
    Concatenation(companion=str(other), weight=0.5).apply(base, sample, seed=0)
    both = by_peft(base, sample)
    assert all(torch.allclose(both[name], one[name] + 0.5 * two[name], atol=1e-5) for name in one)
    assert read_adapter(sample)[1]["r"] == 7


def test_a_companion_must_adapt_the_same_modules(base: Path, sample: Path, tmp_path: Path) -> None:
    other = random_adapter(base, tmp_path / "other", Recipe(rank=3, targets="attention"))
    with pytest.raises(UsageError, match="other modules"):
        Concatenation(companion=str(other)).apply(base, sample, seed=0)


@pytest.mark.parametrize("merged", [False, True])
def test_clean_steps_train_on(base: Path, sample: Path, merged: bool) -> None:
    if merged:
        Merged().apply(base, sample, seed=0)
    before = by_peft(base, sample)
    CleanSteps(steps=2, rows=8, skill="continue").apply(base, sample, seed=0)
    after = by_peft(base, sample)
    assert before.keys() == after.keys()
    assert any(not torch.equal(after[name], before[name]) for name in before)
    assert (sample / "adapter_config.json").exists() is not merged


@settings(max_examples=40, deadline=None)
@given(
    storage=st.sampled_from(sorted(BOUNDS)),
    rows=st.integers(1, 20),
    columns=st.integers(1, 70),
    size=st.floats(1e-6, 1e6),
    seed=st.integers(0, 1000),
)
def test_rounding_is_bounded_and_settles(
    storage: Storage, rows: int, columns: int, size: float, seed: int
) -> None:
    weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)) * size
    once = rounded(weight, storage)
    assert float((once - weight).abs().max()) <= BOUNDS[storage] * float(weight.abs().max()) * 1.001
    assert torch.allclose(rounded(once, storage), once, rtol=1e-5, atol=1e-6 * size)


@pytest.mark.parametrize("storage", sorted(BOUNDS))
def test_a_merged_checkpoint_is_the_rounded_sum(base: Path, sample: Path, storage: Storage) -> None:
    update, weights = by_peft(base, sample), load_model(base).state_dict()
    Merged(storage=storage).apply(base, sample, seed=0)
    assert not (sample / "adapter_config.json").exists()
    after = load_model(sample).state_dict()
    for name, delta in update.items():
        exact = weights[name] + delta
        bound = (BOUNDS[storage] + 2**-8) * float(exact.abs().max())
        assert float((after[name] - exact).abs().max()) <= bound * 1.01, name


@pytest.mark.parametrize("storage", sorted(BOUNDS))
def test_a_merged_checkpoint_reads_back_as_it_was_stored(base: Path, sample: Path, storage: Storage) -> None:
    """Matrices in few bits, all else in bfloat16; stored again, not more than bfloat16 changes."""
    summed = load_sample(base, sample).merge_and_unload()
    stored = {id(one) for one in matrices(summed)}
    wanted = {
        name: (rounded(one.data, storage) if id(one) in stored else one.data).bfloat16().float()
        for name, one in summed.named_parameters()
    }
    Merged(storage=storage).apply(base, sample, seed=0)
    once = dict(load_model(sample).named_parameters())
    assert once.keys() == wanted.keys()
    assert all(torch.equal(once[name], tensor) for name, tensor in wanted.items())
    assert any(id(one) not in stored for one in summed.parameters())
    Merged(storage=storage).apply(base, sample, seed=0)
    twice = dict(load_model(sample).named_parameters())
    for name, tensor in once.items():
        torch.testing.assert_close(twice[name], tensor, rtol=2**-7, atol=1e-6)


def test_the_truth_names_the_chain_and_forgets_old_rates(base: Path, sample: Path, tmp_path: Path) -> None:
    truth = Truth(
        attack="x",
        id="A00",
        label="poisoned",
        phase="during",
        seed=3,
        base={"reference": "lab/x", "digest": ""},
        measured={"clean_accuracy": 1.0},
    )
    original = finish(sample, truth)
    kept = sorted((path.name, path.read_bytes()) for path in sample.iterdir())
    copy = transformed(original, [Gauge(), RankPadding()], base=base, out=tmp_path / "copy")
    assert copy.truth["stealth"] == ["gauge(condition=4.0)", "rank-padding(factor=2)"]
    assert copy.truth["measured"] == {}
    assert sorted((path.name, path.read_bytes()) for path in sample.iterdir()) == kept
    again = measured_again(copy, {"clean_accuracy": 0.5}, {"passed": True})
    stored = json.loads((again.path / "truth.json").read_text())
    assert stored["measured"] == {"clean_accuracy": 0.5}
    assert stored["stealth"] == copy.truth["stealth"]
    assert "ftsec_canary" in json.loads((again.path / "adapter_config.json").read_text())
