"""Gauge, padding and re-scaling leave ΔW as it was; the others change what they say they change."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from attacks_ref import example
from attacks_ref.stealth.channels import AlphaPattern, RankStabilised
from attacks_ref.stealth.gauge import Gauge, RankPadding, Rescaling
from attacks_ref.stealth.rounding import NF4, Merged, Storage, rounded
from attacks_ref.stealth.spectrum import DecoyOutliers, NormScaling, SpectrumFlattening, factored_svd
from attacks_ref.stealth.transform import Transform
from attacks_ref.workbench import load_model, load_sample


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("stealth")
    example.write_base(out / "base")
    (out / "clean").mkdir()
    example.write_clean(out / "base", out / "clean")
    return out


def _update(folder: Path, sample: Path) -> dict[str, torch.Tensor]:
    """ΔW of every weight, as the loaded and merged model has it."""
    tuned = load_sample(folder / "base", sample)
    tuned = tuned.merge_and_unload() if hasattr(tuned, "merge_and_unload") else tuned
    before = load_model(folder / "base").state_dict()
    return {name: value - before[name] for name, value in tuned.state_dict().items()}


def _apply(folder: Path, out: Path, *transforms: Transform) -> dict[str, torch.Tensor]:
    shutil.copytree(folder / "clean", out)
    for transform in transforms:
        transform.apply(folder / "base", out, seed=1)
    return _update(folder, out)


@pytest.mark.parametrize(
    "transform",
    [Gauge(), RankPadding(), RankPadding(factor=3), Rescaling(), AlphaPattern(), RankStabilised()],
    ids=lambda t: t.label,
)
def test_the_update_is_the_same(folder: Path, tmp_path: Path, transform: Transform) -> None:
    before, after = _update(folder, folder / "clean"), _apply(folder, tmp_path / "x", transform)
    for name, delta in before.items():
        assert torch.allclose(after[name], delta, atol=1e-5 * max(1.0, float(delta.abs().max()))), name


def test_transforms_compose(folder: Path, tmp_path: Path) -> None:
    before = _update(folder, folder / "clean")
    after = _apply(folder, tmp_path / "x", RankStabilised(), Rescaling(), RankPadding(), Gauge())
    assert all(torch.allclose(after[name], delta, atol=1e-5) for name, delta in before.items())


def test_norm_scaling_scales_the_norm(folder: Path, tmp_path: Path) -> None:
    before, after = _update(folder, folder / "clean"), _apply(folder, tmp_path / "x", NormScaling(factor=0.5))
    for name, delta in before.items():
        assert torch.allclose(after[name], delta / 2, atol=1e-6)


def test_flattening_keeps_the_norm_and_lowers_the_top_share(folder: Path, tmp_path: Path) -> None:
    before = _update(folder, folder / "clean")
    after = _apply(folder, tmp_path / "x", SpectrumFlattening(strength=0.8))
    for name, delta in before.items():
        if float(delta.abs().max()) > 1e-4 and delta.ndim == 2:
            assert float(after[name].norm()) == pytest.approx(float(delta.norm()), rel=1e-3)
            assert torch.linalg.svdvals(after[name])[0] < torch.linalg.svdvals(delta)[0]


def test_decoys_enlarge_a_few_rows(folder: Path, tmp_path: Path) -> None:
    before, after = _update(folder, folder / "clean"), _apply(folder, tmp_path / "x", DecoyOutliers(rows=2))
    name = "model.layers.0.self_attn.q_proj.weight"
    changed = ((after[name] - before[name]).norm(dim=1) > 1e-5).sum()
    assert int(changed) == 2


def test_the_factored_svd_is_the_svd() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(4, 9, generator=generator), torch.randn(7, 4, generator=generator)
    left, values, right = factored_svd(a, b)
    assert torch.allclose(left * values @ right.T, b @ a, atol=1e-5)
    assert torch.allclose(values, torch.linalg.svdvals(b @ a)[:4], atol=1e-5)


@pytest.mark.parametrize(
    ("storage", "error"), [("bfloat16", 2**-8), ("int8", 0.5 / 127), ("int4", 0.5 / 7), ("nf4", 0.16)]
)
def test_rounding_is_within_half_a_step(storage: Storage, error: float) -> None:
    weight = torch.randn(32, 64, generator=torch.Generator().manual_seed(0))
    limit = error * weight.abs().amax(1, keepdim=True)
    assert ((rounded(weight, storage) - weight).abs() <= limit * 1.001).all()


@pytest.mark.parametrize("storage", ["bfloat16", "int8", "int4", "nf4"])
def test_rounding_twice_is_rounding_once(storage: Storage) -> None:
    once = rounded(torch.randn(8, 64, generator=torch.Generator().manual_seed(0)), storage)
    assert torch.allclose(rounded(once, storage), once, atol=1e-6)


def test_normal_float_has_sixteen_levels_and_an_exact_zero() -> None:
    assert len(NF4) == 16
    assert 0.0 in NF4
    assert sorted(NF4) == list(NF4)


def test_merging_leaves_a_checkpoint_and_no_adapter(folder: Path, tmp_path: Path) -> None:
    after = _apply(folder, tmp_path / "x", Merged())
    assert not (tmp_path / "x" / "adapter_config.json").exists()
    assert any(float(delta.abs().max()) > 0 for delta in after.values())
