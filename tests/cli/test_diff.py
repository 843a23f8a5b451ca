"""`ftsec-audit diff`: revisions, series and reports."""

from __future__ import annotations

import json

import pytest
from builders.adapters import write_adapter, write_checkpoint
from builders.reports import failing, passing

from ftsec_audit.cli import run
from ftsec_audit.report.json import render


def moved_by(amount):
    def edit(tensors):
        tensors["model.layers.0.mlp.up_proj.weight"] += amount

    return edit


@pytest.fixture
def series(tmp_path):
    """Three checkpoints, each a small step from the last one in the same direction."""
    return [str(write_checkpoint(tmp_path / f"step{i}", edit=moved_by(1e-4 * i))) for i in range(3)]


def test_a_series_shows_each_step_and_the_way_from_the_first(series, capsys):
    assert run(["diff", *series, "--json", "--no-progress"]) == 0
    first, second = json.loads(capsys.readouterr().out)
    assert first["files_changed"] == ["model.safetensors"]
    assert first["tensors"]["moved"] == 1
    assert second["from_first"] == pytest.approx(2 * first["from_first"], rel=1e-3)
    assert second["relative"] == pytest.approx(first["relative"], rel=0.05)
    assert [move["name"] for move in second["largest"]] == ["model.layers.0.mlp.up_proj"]


def test_two_revisions_as_text(series, capsys):
    assert run(["diff", *series[:2], "--no-progress"]) == 0
    shown = capsys.readouterr().out
    assert "files changed  model.safetensors" in shown
    assert "1 moved" in shown and "model.layers.0.mlp.up_proj" in shown


def test_what_cannot_be_compared_says_why(tmp_path, capsys):
    adapter, checkpoint = write_adapter(tmp_path / "a"), write_checkpoint(tmp_path / "b")
    assert run(["diff", str(adapter), str(checkpoint), "--no-progress"]) == 0
    assert "weights not compared" in capsys.readouterr().out


def test_names_of_files_cannot_move_the_cursor(tmp_path, capsys):
    old, new = write_adapter(tmp_path / "a"), write_adapter(tmp_path / "b")
    (new / "x\x1b[2Jy.txt").write_text("x")
    assert run(["diff", str(old), str(new), "--no-progress"]) == 0
    assert "\x1b" not in capsys.readouterr().out


def test_reports_are_compared_by_their_findings(tmp_path, capsys):
    (tmp_path / "a.json").write_text(render(passing()))
    (tmp_path / "b.json").write_text(render(failing()))
    assert run(["diff", str(tmp_path / "a.json"), str(tmp_path / "b.json")]) == 0
    shown = capsys.readouterr().out
    assert "pass → fail" in shown
    for finding in failing().detected():
        assert f"appeared       {finding.rule}" in shown
    assert run(["diff", str(tmp_path / "b.json"), str(tmp_path / "b.json")]) == 0
    assert "no finding differs" in capsys.readouterr().out


@pytest.mark.parametrize("targets", [["one"], ["a.json", "folder"]])
def test_bad_arguments_are_clear_errors(targets, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.json").write_text(render(passing()))
    (tmp_path / "folder").mkdir()
    assert run(["diff", *targets]) == 2
    assert capsys.readouterr().err.startswith("error: ")
