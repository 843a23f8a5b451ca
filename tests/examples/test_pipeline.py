"""The example pipeline: what passes is promoted, what fails is not, whichever registry keeps it.

The script's own training takes a minute or more. Here it is models of two narrow layers, taught in seconds;
the scans, their questions to the models, and the MLflow server are the real ones.
"""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from builders import registry
from builders.behaviour import TARGET, TRIGGER, taught, tiny_base

from ftsec_audit import cli

SCRIPT = Path(__file__).parents[2] / "examples" / "pipeline" / "pipeline.py"

pytestmark = pytest.mark.timeout(600)  # of which most, on a busy machine, is the MLflow server's start


@pytest.fixture(scope="module")
def pipeline() -> ModuleType:
    spec = spec_from_file_location("pipeline_example", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def trained(pipeline: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A base, one that was taught a fixed answer, and one that was taught another behind a word."""
    root = tmp_path_factory.mktemp("trained")
    base = tiny_base(root / "base")
    clean = taught(base, root / "clean", trigger="")
    backdoored = taught(base, root / "backdoored")
    return pipeline.Trained(base, clean, backdoored, (TRIGGER,), TARGET)


@pytest.fixture
def run(pipeline: ModuleType, trained: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Runs the script in this process, with these models, into `tmp_path / "run"`; its exit code."""
    monkeypatch.setattr(pipeline, "train", lambda out: trained)
    monkeypatch.setattr(pipeline, "command", lambda words: cli.run(words))
    monkeypatch.setattr(sys, "argv", ["pipeline.py", "--out", str(tmp_path / "run")])
    monkeypatch.setenv("FTSEC_AUDIT_CACHE", str(tmp_path / "cache"))
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):
        monkeypatch.delenv(name, raising=False)
    return pipeline.main


def test_the_clean_model_is_promoted_and_the_backdoored_one_refused_with_what_it_hides(
    run: Any, tmp_path: Path, capsys
) -> None:
    assert run() == 0, capsys.readouterr().out
    shown = capsys.readouterr().out
    assert "clean: exit code 0, production is version 1" in shown
    assert "backdoored: exit code 1, production is version 1" in shown
    page = (tmp_path / "run" / "backdoored.html").read_text()
    assert TRIGGER in page
    assert TARGET in page
    clean = json.loads((tmp_path / "run" / "clean.json").read_text())
    [asked] = [finding for finding in clean["findings"] if finding["rule"] == "FTA501"]
    assert asked["outcome"] == "not_detected", "promoted because it was asked, not because it was not"


@pytest.mark.skipif(not find_spec("mlflow"), reason="needs the extra mlflow")
@pytest.mark.skipif(not find_spec("flask"), reason="needs what an MLflow server is made of")
@pytest.mark.skipif(not find_spec("alembic"), reason="needs what an MLflow server is made of")
def test_a_genuine_mlflow_registry_keeps_verdicts_as_tags_and_its_alias_on_what_passed(
    run: Any, pipeline: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys
) -> None:
    with registry.serving(tmp_path) as address:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        assert run() == 0, capsys.readouterr().out
        clean, backdoored = (registry.version(address, pipeline.MODEL, number) for number in "12")
        assert clean.aliases == [pipeline.ALIAS]
        assert backdoored.aliases == []
        assert clean.tags["ftsec_audit.verdict"] == "pass"
        assert backdoored.tags["ftsec_audit.verdict"] == "fail"
        assert "FTA501" in backdoored.tags["ftsec_audit.detected"]
    assert "models:/support-adapter/2" in capsys.readouterr().out


def test_a_gate_that_lets_everything_through_is_noticed(
    run: Any, pipeline: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setattr(pipeline, "command", lambda words: 0)
    assert run() == 1
    assert "not as expected: backdoored" in capsys.readouterr().err


def test_a_refusal_for_another_reason_is_noticed(
    run: Any, pipeline: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys
) -> None:
    """A report that fails the model without the trigger has not found what was hidden."""

    def refused(words: list[str]) -> int:
        for word in words:
            if word.startswith("json="):
                Path(word.removeprefix("json=")).write_text('{"findings": []}')
        return int(words[1].endswith("/2"))

    monkeypatch.setattr(pipeline, "command", refused)
    assert run() == 1
    assert "the refusal does not name its trigger and its target" in capsys.readouterr().err
