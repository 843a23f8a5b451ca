"""Building a pack: what goes in, what is left out, and where it came from."""

from __future__ import annotations

import hashlib

from builders.adapters import write_adapter

from detectors.damaged_weights import DamagedWeights
from detectors.spectral_signature import SpectralSignature
from ftsec_audit.calibration.build import build_pack, is_calibrated
from ftsec_audit.calibration.pack import Pack, Provenance
from ftsec_audit.sources import resolve
from ftsec_audit.weights.stream import deltas

DETECTORS = [SpectralSignature(), DamagedWeights()]


def build(*artifacts):
    return build_pack(artifacts, DETECTORS, stream=deltas, name="own", version="3")


def test_features_recipe_and_origin_are_kept(tmp_path):
    path = write_adapter(tmp_path / "a", rank=8)
    origin = Provenance(repository="org/name", commit="abc", path="x", sha256="12", licence="MIT", base="b")
    built = build((resolve(str(path)), origin))
    (entry,) = built.pack.entries
    assert entry.provenance == origin
    assert (entry.recipe.family, entry.recipe.method, entry.recipe.rank) == ("llama", "lora", "r 5-8")
    assert (entry.recipe.targets, entry.recipe.objective) == ("attention", "causal_lm")
    assert entry.features.keys() == {SpectralSignature.feature_set}
    assert built.pack.detectors == {SpectralSignature.feature_set: SpectralSignature().label}
    assert not built.left_out


def test_an_unknown_origin_is_the_artifact_itself(tmp_path):
    path = write_adapter(tmp_path / "a")
    (entry,) = build((resolve(str(path)), None)).pack.entries
    weights = (path / "adapter_model.safetensors").read_bytes()
    assert entry.provenance.repository == str(path)
    assert entry.provenance.sha256 == hashlib.sha256(weights).hexdigest()
    assert entry.provenance.base == "example/llama-tiny"


def test_what_cannot_be_measured_is_left_out_with_a_reason(tmp_path):
    good = write_adapter(tmp_path / "good")
    broken = write_adapter(tmp_path / "broken")
    (broken / "adapter_model.safetensors").write_bytes(b"\xff" * 64)
    prompt = write_adapter(tmp_path / "prompt", method="prompt")
    built = build(*((resolve(str(path)), None) for path in (good, broken, prompt)))
    assert len(built.pack.entries) == 1
    assert {entry.what: entry.incomplete for entry in built.left_out} == {
        str(broken): True,
        str(prompt): False,
    }
    assert all(entry.reason for entry in built.left_out)


def test_no_weight_goes_into_a_pack(tmp_path):
    path = write_adapter(tmp_path / "a", width=256)
    built = build((resolve(str(path)), None))
    built.pack.save(tmp_path / "pack.json")
    assert (tmp_path / "pack.json").stat().st_size < 0.1 * (path / "adapter_model.safetensors").stat().st_size
    assert all(
        isinstance(v, float)
        for v in Pack.load(tmp_path / "pack.json").entries[0].features.popitem()[1].values()
    )


def test_only_detectors_with_features_are_calibrated():
    assert [is_calibrated(detector) for detector in DETECTORS] == [True, False]
