"""FTA107: what is not read is listed, never passed over."""

from __future__ import annotations

import torch
from builders.adapters import write_adapter
from builders.audits import audit, finding

from detectors.unread_tensors import UnreadTensors
from ftsec_audit.types import Outcome


def test_everything_known(tmp_path):
    result = audit(UnreadTensors(), write_adapter(tmp_path / "a"))
    assert finding(result, "FTA107").outcome is Outcome.NOT_DETECTED
    assert not result.not_looked_at


def test_a_tensor_of_an_unknown_kind_is_listed_and_keeps_the_verdict_open(tmp_path):
    def edit(tensors):
        tensors["base_model.model.model.layers.0.self_attn.q_proj.finegates_rows"] = torch.ones(32)

    result = audit(UnreadTensors(), write_adapter(tmp_path / "a", edit=edit))
    found = finding(result, "FTA107")
    assert found.outcome is Outcome.NOT_SUPPORTED
    assert "finegates_rows" in found.evidence[0].location.tensor
    assert [entry.incomplete for entry in result.not_looked_at] == [True]


def test_weights_beside_the_loaded_ones_are_listed_as_not_looked_at(tmp_path):
    path = write_adapter(tmp_path / "a")
    (path / "adapter_model.bin").write_bytes((path / "adapter_model.safetensors").read_bytes())
    result = audit(UnreadTensors(), path)
    assert finding(result, "FTA107").outcome is Outcome.NOT_DETECTED
    assert [(entry.what, entry.incomplete) for entry in result.not_looked_at] == [
        ("adapter_model.bin", False)
    ]
