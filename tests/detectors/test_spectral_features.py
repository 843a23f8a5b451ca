"""Features of an adapter: what changes them and what must not."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from builders.adapters import write_adapter
from builders.audits import audit

from detectors.spectral_features import artifact_features, residual_sketch
from detectors.spectral_signature import SpectralSignature
from ftsec_audit.types import ModuleMeasurement


def features(path):
    return artifact_features(audit(SpectralSignature(), path).measurements)


def module(layer, spectrum, name="q_proj", n_layers=6, **values):
    return ModuleMeasurement(
        name=f"model.layers.{layer}.self_attn.{name}",
        role=name,
        layer=layer,
        shape=(8, 8),
        values={"singular_values": spectrum, "scale": 2.0, "n_layers": float(n_layers), **values},
    )


def test_statistics_of_a_known_spectrum():
    found = artifact_features([module(0, [3.0, 4.0][::-1])])
    assert found["all.early.log_norm"] == pytest.approx(math.log(5 / 2))
    assert found["all.early.log_rms"] == pytest.approx(math.log(5 / 2 / 8))
    assert found["all.early.log_sigma1"] == pytest.approx(math.log(4 / 2))
    assert found["all.early.top_share"] == pytest.approx(4 / 7)
    assert found["all.early.log_stable_rank"] == pytest.approx(math.log(25 / 16))
    assert found["all.early.log_gap"] == pytest.approx(math.log(4 / 3))
    shares = [16 / 25, 9 / 25]
    assert found["all.early.entropy"] == pytest.approx(-sum(p * math.log(p) for p in shares) / math.log(2))
    assert found["q_proj.early.log_norm"] == found["all.early.log_norm"]


def test_what_does_not_exist_is_left_out():
    found = artifact_features([module(0, [1.0])])
    assert not {
        key for key in found if key.endswith(("entropy", "log_gap", "effective_rank", "log_kurtosis"))
    }
    assert artifact_features([]) == {}
    assert all(math.isfinite(value) for value in artifact_features([module(0, [1.0, 0.0])]).values())


def test_energy_over_depth():
    even = artifact_features([module(i, [1.0, 0.5]) for i in range(6)])
    one = artifact_features([module(i, [100.0 if i == 5 else 1.0, 0.5]) for i in range(6)])
    assert even["all.gini"] == pytest.approx(0.0, abs=1e-12)
    assert one["all.gini"] > 0.8
    assert even["all.late.energy_share"] == pytest.approx(1 / 3)
    assert one["all.late.energy_share"] > 0.99
    assert even["all.spread"] == pytest.approx(0.0, abs=1e-12)
    assert one["all.spread"] > 1.0


def test_neighbouring_layers_that_point_the_same_way():
    def vector(angle):
        return [math.cos(angle), math.sin(angle)]

    aligned = artifact_features([module(i, [1.0, 0.5], residual_sketch=vector(0.0)) for i in range(3)])
    turned = artifact_features(
        [module(i, [1.0, 0.5], residual_sketch=vector(i * math.pi / 2)) for i in range(3)]
    )
    assert aligned["all.neighbour_cosine"] == pytest.approx(1.0)
    assert turned["all.neighbour_cosine"] == pytest.approx(0.0, abs=1e-12)


def test_a_rescaled_alpha_is_no_signal(tmp_path):
    first = features(write_adapter(tmp_path / "a", alpha=8))
    second = features(write_adapter(tmp_path / "b", alpha=64))
    assert first == pytest.approx(second, rel=1e-6, abs=1e-9)


def test_the_split_into_factors_is_no_signal(tmp_path):
    def regauge(tensors):
        G = torch.randn(4, 4, generator=torch.Generator().manual_seed(3)) + 3 * torch.eye(4)
        for name in tensors:
            if "lora_A" in name:
                tensors[name] = G @ tensors[name]
            if "lora_B" in name:
                tensors[name] = tensors[name] @ torch.linalg.inv(G)

    first = features(write_adapter(tmp_path / "a"))
    second = features(write_adapter(tmp_path / "b", edit=regauge))
    assert first == pytest.approx(second, rel=1e-3, abs=1e-3)


def test_sketches_keep_cosines():
    generator = torch.Generator().manual_seed(0)
    a, b = torch.nn.functional.normalize(torch.randn(2, 4096, generator=generator))
    errors = []
    for cosine in (0.0, 0.5, 0.9, 1.0):
        second = cosine * a + math.sqrt(1 - cosine**2) * b
        sketches = [
            residual_sketch(SimpleNamespace(role="q_proj", top_singular_vectors=lambda v=v: (None, v)))
            for v in (a, second)
        ]
        first, other = (torch.tensor(sketch) for sketch in sketches)
        errors.append(abs(float(first @ other / first.norm() / other.norm()) - cosine))
    assert max(errors) < 4 / math.sqrt(64)
    assert errors[-1] < 1e-6


@pytest.mark.parametrize(
    ("role", "side"), [("q_proj", 1), ("o_proj", 0), ("mlp.c_proj", 0), ("gate_proj", 1)]
)
def test_the_residual_side_is_sketched(role, side):
    vectors = torch.zeros(8), torch.zeros(8)
    vectors[side][3] = 1.0
    sketch = residual_sketch(SimpleNamespace(role=role, top_singular_vectors=lambda: vectors))
    assert math.hypot(*sketch) == pytest.approx(1.0)
