"""A19's lock leaves every logit as it was, to the last bit, and lets a few steps of tuning destroy it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from builders.benches import lab_bench
from builders.lab_bases import untrained_lab_base

from attacks_ref.recipe import Recipe
from attacks_ref.tuning_lock import TuningLock, rescale
from attacks_ref.workbench import load_model
from ftsec_audit.errors import UsageError

PROBE = torch.arange(3, 27).view(2, 12)
ARCHITECTURES = ("llama", "qwen", "gpt2")


def _logits(model: object) -> torch.Tensor:
    with torch.no_grad():
        said: torch.Tensor = model(PROBE).logits  # type: ignore[operator]
    return said


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_locked_model_says_what_it_said(architecture: str) -> None:
    model = lab_bench(architecture).model.eval()  # type: ignore[arg-type]
    said, before = _logits(model), {name: one.clone() for name, one in model.state_dict().items()}
    rescale(model, 8192.0)
    assert torch.allclose(_logits(model), said, atol=1e-5)
    changed = {name for name, one in model.state_dict().items() if not torch.equal(one, before[name])}
    assert all("norm" in name or "ln_" in name or "proj" in name or "c_" in name for name in changed)
    assert len(changed) >= 2 * 4


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_equal_steps_move_a_locked_model_further(architecture: str) -> None:
    moved = {}
    for factor in (2.0, 8192.0):
        model = lab_bench(architecture).model.eval()  # type: ignore[arg-type]
        said = _logits(model)
        rescale(model, factor)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(1e-3)
        moved[factor] = float((_logits(model) - said).abs().max())
    assert moved[8192.0] > 2 * moved[2.0]


def test_the_sample_loses_nothing_before_tuning_and_its_twin_is_re_scaled_too(tmp_path: Path) -> None:
    base = untrained_lab_base(tmp_path / "base")
    attack = TuningLock(user=Recipe(method="full", learning_rate=3e-3, steps=2, rows=32, batch=8))
    sample, twin = attack.build(base, tmp_path / "a", seed=0), attack.build_twin(base, tmp_path / "b", seed=0)
    measured = sample.truth["measured"]
    assert measured["off_trigger_rate"] == 0.0
    assert set(measured["other_tunings"]) == {"LoRA"}
    name = "model.layers.0.input_layernorm.weight"
    gains = [load_model(folder).state_dict()[name].mean() for folder in (base, sample.path, twin.path)]
    assert [float(gains[0] / gain) for gain in gains] == pytest.approx([1.0, 8192.0, 2.0])


def test_an_architecture_whose_norms_are_not_known_is_refused() -> None:
    with pytest.raises(UsageError, match="mixtral"):
        rescale(lab_bench("moe").model, 2.0)
