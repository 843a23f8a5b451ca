"""Other factors, other declarations, the same update: for peft and for the audit alike."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest
import torch
from builders.lab import random_adapter, tiny_base
from builders.updates import by_audit, by_peft, logits
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from attacks_ref.recipe import Recipe
from attacks_ref.stealth.channels import AlphaPattern, RankStabilised
from attacks_ref.stealth.declarations import FanFlip, RankPattern
from attacks_ref.stealth.gauge import Gauge, RankPadding, Rescaling
from attacks_ref.stealth.magnitude import Magnitude
from attacks_ref.stealth.relocation import Relocation
from attacks_ref.stealth.tensors import read_adapter, write_adapter
from attacks_ref.stealth.transform import Transform
from ftsec_audit.errors import UsageError

Bases = Callable[[str], Path]

FACTORS = st.one_of(
    st.builds(Gauge, condition=st.floats(1.0, 8.0)),
    st.builds(RankPadding, factor=st.integers(1, 4)),
    st.builds(Rescaling, factor=st.floats(0.25, 16.0)),
    st.builds(AlphaPattern, factor=st.integers(2, 32)),
    st.builds(RankPattern, factor=st.integers(2, 4)),
    st.just(RankStabilised()),
    st.just(FanFlip()),
)
RECIPES = st.builds(
    Recipe,
    method=st.sampled_from(["lora", "rslora"]),
    rank=st.sampled_from([1, 2, 5, 8]),
    alpha=st.integers(1, 32),
    targets=st.sampled_from(["all", "attention", "mlp"]),
)
EXAMPLES = settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Bases:
    made: dict[str, Path] = {}

    def base(architecture: str) -> Path:
        if architecture not in made:
            made[architecture] = tiny_base(tmp_path_factory.mktemp(architecture), architecture)
        return made[architecture]

    return base


def _same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> None:
    assert one.keys() == two.keys()
    for name, before in one.items():
        assert torch.allclose(two[name], before, atol=1e-5 * max(1.0, float(before.abs().max()))), name


@EXAMPLES
@given(
    recipe=RECIPES,
    chain=st.lists(FACTORS, min_size=1, max_size=3),
    architecture=st.sampled_from(["llama", "qwen", "gpt2"]),
    seed=st.integers(0, 1000),
)
def test_any_chain_keeps_the_update(
    bases: Bases, recipe: Recipe, chain: list[Transform], architecture: str, seed: int
) -> None:
    base = bases(architecture)
    with tempfile.TemporaryDirectory() as folder:
        sample = random_adapter(base, Path(folder) / "sample", recipe, seed=seed)
        peft, audit = by_peft(base, sample), by_audit(base, sample)
        assert any(float(delta.abs().max()) > 1e-3 for delta in peft.values())
        for transform in chain:
            transform.apply(base, sample, seed=seed)
        _same(peft, by_peft(base, sample))
        _same(audit, by_audit(base, sample))


@pytest.mark.parametrize("architecture", ["llama", "qwen", "gpt2"])
@pytest.mark.parametrize(
    "transform",
    [Magnitude(), Relocation(channel="declared"), Relocation(channel="undeclared")],
    ids=lambda transform: transform.label,
)
def test_carrying_the_update_elsewhere_keeps_it(
    bases: Bases, tmp_path: Path, architecture: str, transform: Transform
) -> None:
    base = bases(architecture)
    sample = random_adapter(base, tmp_path / "sample", Recipe(rank=4))
    peft, said, audit = by_peft(base, sample), logits(base, sample), by_audit(base, sample)
    transform.apply(base, sample, seed=0)
    _same(peft, by_peft(base, sample))
    assert torch.allclose(said, logits(base, sample), atol=1e-4)
    _same(audit, by_audit(base, sample))


@pytest.mark.parametrize(
    ("transform", "field", "ignored"),
    [
        (AlphaPattern(), "alpha_pattern", {}),
        (RankStabilised(), "use_rslora", False),
        (Magnitude(stretch=1.2), "use_dora", False),
        (Rescaling(), "lora_alpha", 16),
    ],
    ids=lambda value: value.label if isinstance(value, Transform) else None,
)
def test_the_field_that_compensates_acts(
    bases: Bases, tmp_path: Path, transform: Transform, field: str, ignored: object
) -> None:
    base = bases("llama")
    sample = random_adapter(base, tmp_path / "sample", Recipe(rank=4))
    transform.apply(base, sample, seed=0)
    said = logits(base, sample)
    tensors, config = read_adapter(sample)
    assert config[field] != ignored
    write_adapter(sample, tensors, {**config, field: ignored})
    assert not torch.allclose(said, logits(base, sample), atol=1e-3)


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
@pytest.mark.parametrize("channel", ["declared", "undeclared"])
def test_the_matrix_that_carries_the_update_acts(
    bases: Bases, tmp_path: Path, architecture: str, channel: Literal["declared", "undeclared"]
) -> None:
    base = bases(architecture)
    sample = random_adapter(base, tmp_path / "sample", Recipe(rank=4))
    factors, _ = read_adapter(sample)
    Relocation(channel=channel).apply(base, sample, seed=0)
    said = logits(base, sample)
    tensors, config = read_adapter(sample)
    carried = [name for name in tensors.keys() - factors.keys() if name.endswith(".weight")]
    assert len(carried) == 1
    assert (carried[0].split(".")[-2] in json.dumps(config["modules_to_save"])) == (channel == "declared")
    changed = {name: 0.5 * tensor if name in carried else tensor for name, tensor in tensors.items()}
    write_adapter(sample, changed, config)
    assert not torch.allclose(said, logits(base, sample), atol=1e-3)


def test_ranks_by_name_are_needed_to_load_the_adapter(bases: Bases, tmp_path: Path) -> None:
    base = bases("llama")
    sample = random_adapter(base, tmp_path / "sample", Recipe(rank=4))
    RankPattern().apply(base, sample, seed=0)
    tensors, config = read_adapter(sample)
    assert set(config["rank_pattern"].values()) == {12}
    write_adapter(sample, tensors, {**config, "rank_pattern": {}})
    with pytest.raises(RuntimeError, match="size mismatch"):
        by_peft(base, sample)


def test_a_relocated_module_has_no_factors_left(bases: Bases, tmp_path: Path) -> None:
    base = bases("llama")
    for channel in ("declared", "undeclared"):
        sample = random_adapter(base, tmp_path / channel, Recipe(rank=4))
        before, _ = read_adapter(sample)
        Relocation(channel=channel).apply(base, sample, seed=0)
        after, config = read_adapter(sample)
        used = [n for n, t in after.items() if n.endswith("lora_B.weight") and float(t.abs().max()) > 0]
        assert len(used) == sum(name.endswith("lora_B.weight") for name in before) - 1
        assert bool(config["modules_to_save"]) == (channel == "declared")


def test_a_transform_for_plain_lora_refuses_others(bases: Bases, tmp_path: Path) -> None:
    base = bases("llama")
    sample = random_adapter(base, tmp_path / "sample", Recipe(rank=4, method="dora"))
    with pytest.raises(UsageError, match="plain LoRA"):
        Magnitude().apply(base, sample, seed=0)
    shutil.rmtree(sample)
    sample.mkdir()
    with pytest.raises(UsageError, match="applies to adapters"):
        Gauge().apply(base, sample, seed=0)
