"""`ftsec-audit learn`: records in, a score and its card out, which `scan` takes."""

from __future__ import annotations

import json

from builders.adapters import write_adapter
from builders.labelled import labelled

from ftsec_audit.calibration.learned import LearnedScore
from ftsec_audit.cli import run
from ftsec_audit.validate import records


def test_a_score_is_fitted_and_used(tmp_path, capsys):
    population = labelled(lambda bad, recipe, rng: rng.normal() + 3 * bad, recipes=3, jobs=3)
    (tmp_path / "records.jsonl").write_text(records.dumps(population))
    output = tmp_path / "ours.onnx"
    assert run(["learn", str(tmp_path / "records.jsonl"), "-o", str(output), "--name", "ours"]) == 0
    said = capsys.readouterr().out
    assert "9 known-bad, 9 benign" in said
    assert "leave one recipe out (3): AUROC" in said
    assert LearnedScore.load(output).id == "ours@1"

    adapter = write_adapter(tmp_path / "adapter")
    run(["scan", str(adapter), "--no-base", "--select", "FTA2", "--calibration", str(output), "-f", "json"])
    (found,) = (f for f in json.loads(capsys.readouterr().out)["findings"] if f["rule"] == "FTA209")
    assert found["outcome"] == "not_applicable"


def test_another_ending_is_refused(tmp_path, capsys):
    (tmp_path / "r.jsonl").write_text("")
    assert run(["learn", str(tmp_path / "r.jsonl"), "-o", str(tmp_path / "score.json")]) == 2
    assert ".onnx" in capsys.readouterr().err


def test_what_cannot_be_written_is_said_before_anything_is_fitted(tmp_path, capsys):
    (tmp_path / "records.jsonl").write_text("")  # fitting would complain of these
    (tmp_path / "notes.json").write_text("mine")
    complaints = {"absent/ours.onnx": "no such folder", "notes.onnx": "is no card of this score"}
    for output, complaint in complaints.items():
        assert run(["learn", str(tmp_path / "records.jsonl"), "-o", str(tmp_path / output)]) == 2
        assert complaint in capsys.readouterr().err
    assert (tmp_path / "notes.json").read_text() == "mine"
