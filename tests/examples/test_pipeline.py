"""The example pipeline: what passes is promoted, what fails is not, whichever registry keeps it."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from attacks_ref import example

SCRIPT = Path(__file__).parents[2] / "examples" / "pipeline" / "pipeline.py"


@pytest.fixture
def pipeline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """The script with less training and, for its scans, this process."""
    from importlib.util import module_from_spec, spec_from_file_location

    from ftsec_audit import cli

    spec = spec_from_file_location("pipeline_example", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # dataclasses look their module up
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "scan", lambda target, *options: cli.run(["scan", target, *options, "-q"]))
    monkeypatch.setattr(example, "STEPS", 2)
    monkeypatch.setattr(example, "RECIPE", replace(example.RECIPE, steps=2, rows=32))
    monkeypatch.setenv("FTSEC_AUDIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return module


def test_the_clean_adapter_is_promoted_and_the_other_refused(
    pipeline: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    out = tmp_path / "run"
    monkeypatch.setattr(sys, "argv", ["pipeline.py", "--out", str(out)])
    assert pipeline.main() == 0, capsys.readouterr().out
    shown = capsys.readouterr().out
    assert "clean: exit code 0, production is version 1" in shown
    assert "backdoored: exit code 1, production is version 1" in shown
    assert "FTA301" in (out / "backdoored.html").read_text()


def test_a_gate_that_lets_everything_through_is_noticed(
    pipeline: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    for name in ("base", "clean", "backdoored"):
        (tmp_path / name).mkdir()
    folders = tuple(tmp_path / name for name in ("base", "clean", "backdoored"))
    monkeypatch.setattr(pipeline, "train", lambda out: folders)
    monkeypatch.setattr(pipeline, "scan", lambda *words: 0)
    monkeypatch.setattr(sys, "argv", ["pipeline.py", "--out", str(tmp_path / "run")])
    assert pipeline.main() == 1
    assert "not as expected: backdoored" in capsys.readouterr().err
