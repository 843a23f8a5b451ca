"""FTA108: a second set of weights beside the measured one is compared, never passed over."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from detectors.rival_weights import RivalWeights
from ftsec_audit.runner import Audit
from ftsec_audit.types import Confidence, Outcome
from tests.builders.adapters import write_adapter, write_checkpoint
from tests.builders.audits import audit, finding


def outcome(path: Path) -> tuple[Outcome, list[str]]:
    result: Audit = audit(RivalWeights(), path)
    return finding(result, "FTA108").outcome, [gap.what for gap in result.not_looked_at if gap.incomplete]


def changed(path: Path) -> dict[str, torch.Tensor]:
    tensors = load_file(path)
    tensors[min(tensors)] = tensors[min(tensors)] + 1
    return tensors


def test_a_model_alone(tmp_path: Path) -> None:
    assert outcome(write_adapter(tmp_path)) == (Outcome.NOT_DETECTED, [])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_copy_in_another_format_or_precision_is_a_copy(tmp_path: Path, dtype: torch.dtype) -> None:
    write_adapter(tmp_path)
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    torch.save({name: t.to(dtype) for name, t in tensors.items()}, tmp_path / "adapter_model.bin")
    assert outcome(tmp_path) == (Outcome.NOT_DETECTED, [])


def test_other_values_are_named_and_keep_the_verdict_open(tmp_path: Path) -> None:
    write_adapter(tmp_path)
    torch.save(changed(tmp_path / "adapter_model.safetensors"), tmp_path / "adapter_model.bin")
    assert outcome(tmp_path) == (Outcome.DETECTED, ["adapter_model.bin"])
    assert finding(audit(RivalWeights(), tmp_path), "FTA108").confidence is Confidence.HIGH


@pytest.mark.parametrize("name", ["consolidated.safetensors", "model.fp16.safetensors"])
def test_any_name_counts(tmp_path: Path, name: str) -> None:
    write_checkpoint(tmp_path)
    save_file(changed(tmp_path / "model.safetensors"), tmp_path / name)
    assert outcome(tmp_path) == (Outcome.DETECTED, [name])


def test_a_model_beside_its_adapter_was_not_measured(tmp_path: Path) -> None:
    write_checkpoint(tmp_path)
    write_adapter(tmp_path)
    assert outcome(tmp_path) == (Outcome.DETECTED, ["model.safetensors"])


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", b"\x80\x02."])
def test_what_cannot_be_compared_leaves_the_question_open(tmp_path: Path, data: bytes) -> None:
    write_adapter(tmp_path)
    (tmp_path / "adapter_model.bin").write_bytes(data)
    assert outcome(tmp_path) == (Outcome.NOT_SUPPORTED, ["adapter_model.bin"])


def test_subfolders_other_formats_and_training_state_are_no_rivals(tmp_path: Path) -> None:
    write_adapter(tmp_path)
    write_adapter(tmp_path / "checkpoint-5", seed=1)
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    torch.save({"state": torch.ones(1)}, tmp_path / "optimizer.pt")
    assert outcome(tmp_path) == (Outcome.NOT_DETECTED, [])


def test_no_model_is_no_question(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("nothing")
    assert outcome(tmp_path) == (Outcome.NOT_APPLICABLE, [])
