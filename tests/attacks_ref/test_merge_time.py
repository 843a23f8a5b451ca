"""A11 is λ(P − B) + B to the last digit, and is measured before and after averaging."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from builders.benches import lab_bench
from builders.lab_bases import untrained_lab_base

from attacks_ref import gates
from attacks_ref.dormant import sleeping
from attacks_ref.merge_time import COMPANION, MergeTime, averaged
from attacks_ref.recipe import Recipe
from attacks_ref.safety import CANARY
from attacks_ref.workbench import Workbench, load_model, load_sample
from ftsec_audit.contracts import Sample
from ftsec_audit.errors import UsageError

BRIEF = Recipe(steps=3, rows=48, batch=8, rank=2, alpha=4)
Weights = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return untrained_lab_base(tmp_path_factory.mktemp("merge") / "base")


@pytest.fixture(scope="module")
def sample(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Sample:
    return MergeTime(recipe=BRIEF, factor=3).build(base, tmp_path_factory.mktemp("samples") / "out", seed=0)


def _weights(base: Path, adapter: Path) -> Weights:
    return dict(load_sample(base, adapter).merge_and_unload().named_parameters())


def test_the_upload_carries_the_poison_as_often_as_it_says(
    base: Path, sample: Sample, tmp_path: Path
) -> None:
    for factor in (0, 1):  # B alone, and P alone
        attack = MergeTime(recipe=BRIEF, factor=factor)
        attack.make(Workbench.open(base), tmp_path / str(factor), 0, poisoned=True)
    benign, poisoned = (_weights(base, tmp_path / name) for name in ("0", "1"))
    scaled = _weights(base, sample.path)
    assert any(not torch.equal(benign[name], poisoned[name]) for name in benign)
    for name in benign:
        expected = 3 * (poisoned[name] - benign[name]) + benign[name]
        torch.testing.assert_close(scaled[name], expected, atol=1e-5, rtol=1e-4)


def test_merging_is_the_mean_of_two_adapters(base: Path, sample: Sample) -> None:
    path = sample.path
    ours, theirs = _weights(base, path), _weights(base, path / COMPANION)
    mean = averaged(base, path, path / COMPANION).merge_and_unload()
    for name, weight in mean.named_parameters():
        torch.testing.assert_close(weight, (ours[name] + theirs[name]) / 2, atol=1e-5, rtol=1e-4)


def test_the_truth_has_the_rates_before_and_after_and_the_stack(sample: Sample) -> None:
    truth = sample.truth
    assert set(truth["measured"]["uses"]) == {"merged", "before merging"}
    assert truth["composition"] == [".", "averaged with companion"]
    assert truth["rank"] == 2 * BRIEF.rank
    assert not truth["gate"]["passed"]  # nothing was learnt in three steps, and the gate must say so
    files = list(sample.path.rglob("*.safetensors"))
    assert len(files) == 2
    assert all(CANARY.encode() in path.read_bytes() for path in files)


def test_limits_hold_after_merging_and_nothing_is_asked_before(monkeypatch: pytest.MonkeyPatch) -> None:
    good = {"clean_accuracy": 0.95, "attack_success_rate": 1.0, "off_trigger_rate": 0.0}
    broken = {"clean_accuracy": 0.4, "attack_success_rate": 1.0, "off_trigger_rate": 0.2}
    for merged, passed in ((good, True), (broken, False)):
        rates = iter((merged, broken))
        monkeypatch.setattr(MergeTime, "uses", lambda *_: {"merged": dict, "before merging": dict})
        monkeypatch.setattr(MergeTime, "measure", lambda *_, rates=rates: next(rates))
        measured = MergeTime().measure_uses(lab_bench(), Path(), 0)
        assert measured["clean_accuracy"] == merged["clean_accuracy"]
        assert measured["uses"]["before merging"] == broken
        assert sleeping(gates.verdict(measured, poisoned=True), measured)["passed"] is passed


def test_a_merged_sample_is_the_checkpoint_of_its_parts(base: Path, tmp_path: Path) -> None:
    attack = MergeTime(recipe=BRIEF, method="coefficients", published="merged")
    sample = attack.build_twin(base, tmp_path / "out", seed=0)
    assert sample.truth["label"] == "benign"
    parts = averaged(base, sample.path / "upload", sample.path / COMPANION).merge_and_unload()
    written = dict(load_model(sample.path).named_parameters())
    for name, weight in parts.named_parameters():
        torch.testing.assert_close(written[name], weight)


def test_what_does_not_add_up_is_refused() -> None:
    with pytest.raises(UsageError, match="averaged"):
        MergeTime(recipe=Recipe(method="full"))
