"""The example pipeline: what passes is promoted, what fails is not, whichever registry keeps it."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from builders.adapters import write_adapter, write_checkpoint

SCRIPT = Path(__file__).parents[2] / "examples" / "pipeline" / "pipeline.py"


def untrained(out: Path) -> tuple[Path, Path, Path]:
    """As `train`: in the second adapter is an embedding matrix that its configuration does not mention."""

    def edit(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {**tensors, "base_model.model.model.embed_tokens.weight": torch.randn(64, 32)}

    return (
        write_checkpoint(out / "base"),
        write_adapter(out / "clean"),
        write_adapter(out / "backdoored", edit=edit),
    )


@pytest.fixture
def pipeline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """The script without its training, which takes a minute, and with this process for its scans."""
    from importlib.util import module_from_spec, spec_from_file_location

    from ftsec_audit import cli

    spec = spec_from_file_location("pipeline_example", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # dataclasses look their module up
    spec.loader.exec_module(module)
    quietly = ("--ignore", module.NOT_ASKED, "-q")
    monkeypatch.setattr(
        module, "scan", lambda target, *options: cli.run(["scan", target, *options, *quietly])
    )
    monkeypatch.setattr(module, "train", untrained)
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
    assert "FTA102" in (out / "backdoored.html").read_text()


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
