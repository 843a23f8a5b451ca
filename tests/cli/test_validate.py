"""`ftsec-audit validate` on a small zoo built by code: resumable, and honest about what it could not scan."""

from __future__ import annotations

import json

import pytest
import torch
from builders.adapters import write_adapter, write_checkpoint

from ftsec_audit.cli import run
from ftsec_audit.types import Outcome
from ftsec_audit.validate import BEHAVIOUR, document, evaluate
from ftsec_audit.validate import records as kept


@pytest.fixture
def zoo(tmp_path, monkeypatch):
    """Two benign adapters, two with an undeclared tensor, one whose weights are cut off."""
    monkeypatch.setenv("FTSEC_AUDIT_CACHE", str(tmp_path / "cache"))
    base = write_checkpoint(tmp_path / "base")
    lines = []
    for number, label in enumerate(["benign", "poisoned", "benign", "poisoned"]):
        folder = write_adapter(tmp_path / "zoo" / "samples" / f"s{number}", seed=number)
        if label == "poisoned":
            from safetensors.torch import load_file, save_file

            weights = folder / "adapter_model.safetensors"
            tensors = load_file(weights)
            tensors["base_model.model.model.embed_tokens.weight"] = torch.randn(64, 32)
            save_file(tensors, weights)
        lines.append(
            {
                "key": f"s{number}", "attack": "demo", "label": label, "base": str(base), "seed": number,
                "stealth": [], "path": f"samples/s{number}", "accepted": True, "trigger": [],
                "recipe": {"recipe": {"rank": number // 2}}, "expected_rules": ["FTA102"],
            }
        )  # fmt: skip
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "zoo" / "manifest.jsonl").write_text(text)
    return tmp_path / "zoo"


def test_the_matrix_is_written_and_a_second_run_scans_nothing(zoo, tmp_path, capsys):
    out = tmp_path / "out"
    assert run(["validate", "--zoo", str(zoo), "--out", str(out), "--no-progress"]) == 0
    shown = capsys.readouterr().out
    assert "2 known-bad and 2 benign samples" in shown
    assert "| demo | known-bad | 2 | 2/2 [0.34, 1.00] | 0 | 2/2 |" in shown
    assert "| verdict FAIL | not fitted | 2 : 2 (2 : 2) | 0 | 1.00" in shown
    cells = [json.loads(line) for line in (out / "matrix.jsonl").read_text().splitlines()]
    assert {"kind", "score", "part", "auroc"} <= cells[0].keys()
    assert "plotly" in (out / "matrix.html").read_text()
    stored = {path: path.stat().st_mtime_ns for path in (out / "reports").iterdir()}
    assert run(["validate", "--zoo", str(zoo), "--out", str(out), "--no-progress"]) == 0
    assert {path: path.stat().st_mtime_ns for path in (out / "reports").iterdir()} == stored


def test_weights_only_asks_no_model_and_what_is_kept_gives_the_same_matrix(zoo, tmp_path):
    out = tmp_path / "out"
    assert run(["validate", "--zoo", str(zoo), "--out", str(out), "--weights-only", "--no-progress"]) == 0
    records = kept.load(out / "records.jsonl")
    assert {one.sample.key for one in records} == {"s0", "s1", "s2", "s3"}
    asked = {f.rule for one in records for f in one.findings if f.outcome is not Outcome.NOT_SUPPORTED}
    assert not any(rule.startswith(BEHAVIOUR) for rule in asked)
    assert document.jsonl(evaluate(records)) == (out / "matrix.jsonl").read_text()


def test_an_empty_zoo_is_a_clear_error(tmp_path, capsys):
    (tmp_path / "zoo").mkdir()
    assert run(["validate", "--zoo", str(tmp_path / "zoo"), "--out", str(tmp_path / "out")]) == 2
    assert "no accepted sample" in capsys.readouterr().err
