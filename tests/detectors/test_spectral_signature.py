"""FTA201: unlike a population, never above a line."""

from __future__ import annotations

import pytest
import torch
from builders.adapters import write_adapter, write_checkpoint
from builders.audits import audit, finding

from detectors.spectral_signature import SpectralSignature
from ftsec_audit.calibration.bank import Calibration
from ftsec_audit.calibration.build import build_pack
from ftsec_audit.calibration.pack import Provenance
from ftsec_audit.sources import resolve
from ftsec_audit.types import Confidence, Outcome
from ftsec_audit.weights.stream import deltas


def trained(strength):
    """Every run of a recipe comes out a little stronger or weaker."""

    def edit(tensors):
        for name, tensor in tensors.items():
            if "lora_B" in name:
                tensor *= strength

    return edit


def spiked(tensors):
    """One direction of one third of the layers carries a hundred times the energy."""
    for name, tensor in tensors.items():
        if "lora_B" in name and (".layers.2." in name or ".layers.3." in name):
            tensor[:, 0] *= 100.0


def adapter(path, seed, **options):
    strength = 0.8 + 0.4 * float(torch.rand(1, generator=torch.Generator().manual_seed(seed)))
    return write_adapter(path, seed=seed, **({"edit": trained(strength)} | options))


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    folder = tmp_path_factory.mktemp("benign")
    artifacts = [
        (resolve(str(adapter(folder / str(seed), seed))), Provenance(repository=f"org/{seed}"))
        for seed in range(120)
    ]
    return build_pack(artifacts, [SpectralSignature()], stream=deltas, name="lab", version="1").pack


def judged(path, *packs, base=None, detector=None):
    result = audit(detector or SpectralSignature(), path, base, Calibration(packs=packs))
    return finding(result, "FTA201")


def test_a_benign_sibling_is_ordinary(pack, tmp_path):
    found = judged(adapter(tmp_path / "a", 1000), pack)
    assert (found.outcome, found.confidence) == (Outcome.NOT_DETECTED, Confidence.MEDIUM)
    assert found.p_value > 0.01


def test_false_alarms_keep_the_level(pack, tmp_path):
    p_values = [judged(adapter(tmp_path / str(i), 2000 + i), pack).p_value for i in range(40)]
    assert sum(p <= 0.1 for p in p_values) <= 10  # binomial(40, 0.1) exceeds 10 with p < 0.002


def test_an_unusual_spectrum_is_reported_with_its_population(pack, tmp_path):
    found = judged(adapter(tmp_path / "a", 1001, edit=spiked), pack)
    assert (found.outcome, found.confidence) == (Outcome.DETECTED, Confidence.MEDIUM)
    assert found.p_value <= 0.01
    population = found.evidence[0].population
    assert (population.id, population.n, population.quantile) == ("lab@1", 120, 1.0)
    assert "llama · lora · r 1-4" in population.stratum
    assert population.band[0] < population.band[1] < found.evidence[0].value
    assert all(abs(float(e.message.split("z = ")[1][:-1])) > 5 for e in found.evidence[2:])


def test_a_rescaled_alpha_hides_nothing_and_accuses_nobody(pack, tmp_path):
    assert judged(adapter(tmp_path / "a", 1002, alpha=0.5), pack).outcome is Outcome.NOT_DETECTED
    assert judged(adapter(tmp_path / "b", 1002, alpha=0.5, edit=spiked), pack).outcome is Outcome.DETECTED


def test_a_member_of_the_bank_is_not_compared_with_itself(pack, tmp_path):
    found = judged(adapter(tmp_path / "a", 7), pack)
    assert found.evidence[0].population.n == 119


def small(pack, count):
    return type(pack)(name="small", version="1", entries=pack.entries[:count], detectors=pack.detectors)


def test_a_small_population_says_so_and_stays_low(pack, tmp_path):
    ordinary = judged(adapter(tmp_path / "a", 1003), small(pack, 12))
    assert (ordinary.outcome, ordinary.confidence) == (Outcome.NOT_DETECTED, Confidence.LOW)
    assert "uncalibrated" in ordinary.summary
    assert ordinary.p_value is None
    gross = judged(adapter(tmp_path / "b", 1003, edit=spiked), small(pack, 12))
    assert (gross.outcome, gross.confidence, gross.p_value) == (Outcome.DETECTED, Confidence.LOW, None)
    assert "uncalibrated" in gross.summary


@pytest.mark.parametrize("count", [0, 4])
def test_hardly_any_population_is_no_answer(pack, tmp_path, count):
    found = judged(adapter(tmp_path / "a", 1004), small(pack, count))
    assert found.outcome is Outcome.NOT_SUPPORTED
    assert f"{count} repositories" in found.summary


def test_another_rank_is_not_compared(pack, tmp_path):
    assert judged(adapter(tmp_path / "a", 1005, rank=16), pack).outcome is Outcome.NOT_SUPPORTED


def test_a_fallback_weakens_the_p_value(pack, tmp_path):
    narrow = judged(adapter(tmp_path / "a", 1006, edit=spiked), pack)
    other = judged(adapter(tmp_path / "b", 1006, edit=spiked, base_model_name_or_path="acme/qwen"), pack)
    assert other.p_value == pytest.approx(min(1.0, 8 * narrow.p_value))


def test_two_versions_of_a_feature_set_are_not_mixed(pack, tmp_path):
    class Next(SpectralSignature):
        feature_set = "spectral-signature/2"

    found = judged(adapter(tmp_path / "a", 1007), pack, detector=Next())
    assert found.outcome is Outcome.NOT_SUPPORTED


def test_nothing_low_rank_to_measure(pack, tmp_path):
    base = write_checkpoint(tmp_path / "base")
    zero = write_adapter(tmp_path / "zero", edit=trained(0.0))
    assert judged(zero, pack).outcome is Outcome.NOT_DETECTED
    assert judged(write_adapter(tmp_path / "ia3", method="ia3"), pack).outcome is Outcome.NOT_SUPPORTED
    assert judged(write_checkpoint(tmp_path / "copy"), pack, base=base).outcome is Outcome.NOT_DETECTED
    assert judged(write_checkpoint(tmp_path / "c", seed=1), pack, base=base).outcome is Outcome.NOT_SUPPORTED
