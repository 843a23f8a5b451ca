"""`ftsec-audit calibrate`, `attack` and `doctor`: from benign folders to a pack that a scan uses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from builders.adapters import write_adapter

from ftsec_audit import cli
from ftsec_audit.calibration.pack import Pack
from ftsec_audit.cli import doctor


@pytest.fixture(scope="module")
def benign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six adapters of three repositories, with their manifest."""
    root = tmp_path_factory.mktemp("benign")
    records = []
    for seed in range(6):
        write_adapter(root / f"a{seed}", seed=seed, width=64)
        records.append({"dir": f"a{seed}", "repo": f"org/r{seed // 2}", "licence": "MIT"})
    (root / "manifest.json").write_text(json.dumps(records))
    return root


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FTSEC_AUDIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_manifest_tells_repositories_apart(benign: Path, elsewhere: Path, capsys) -> None:
    assert (
        cli.run(
            ["calibrate", "--manifest", str(benign / "manifest.json"), "-o", "p.json.gz", "--name", "mine"]
        )
        == 0
    )
    assert "6 artifacts of 3 repositories" in capsys.readouterr().out
    pack = Pack.load(elsewhere / "p.json.gz")
    assert pack.id == "mine@1"
    assert {entry.provenance.licence for entry in pack.entries} == {"MIT"}


def test_a_scan_uses_the_pack_it_is_given(benign: Path, capsys) -> None:
    folders = [str(benign / f"a{seed}") for seed in range(1, 6)]
    assert cli.run(["calibrate", *folders, "-o", "p.json", "--name", "mine"]) == 0
    cli.run(["scan", folders[0], "--profile", "quick", "--calibration", "p.json", "-f", "json", "-q"])
    report = json.loads(capsys.readouterr().out.partition("\n")[2])
    assert "--calibration p.json" in report["command"]
    populations = [e["population"] for f in report["findings"] for e in f["evidence"] if e.get("population")]
    assert all(population["id"].startswith("mine@") for population in populations)


def test_a_pack_can_be_extended(benign: Path, elsewhere: Path, capsys) -> None:
    assert cli.run(["calibrate", str(benign / "a0"), "-o", "p.json"]) == 0
    extended = ["calibrate", str(benign / "a1"), "-o", "p.json", "--version", "2", "--extend", "p.json"]
    assert cli.run(extended) == 0
    pack = Pack.load(elsewhere / "p.json")
    assert (pack.version, len(pack.entries)) == ("2", 2)


def test_what_cannot_be_measured_is_told_and_an_empty_pack_is_not_written(elsewhere: Path, capsys) -> None:
    (elsewhere / "empty").mkdir()
    (elsewhere / "empty" / "README.md").write_text("#")
    assert cli.run(["calibrate", "./empty", "-o", "p.json"]) == 2
    assert not (elsewhere / "p.json").exists()
    assert "nothing was written" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["", "{", '{"dir": 1}', "[1]", '[{"repo": "a/b"}]'])
def test_a_wrong_manifest_is_refused(elsewhere: Path, content: str, capsys) -> None:
    (elsewhere / "m.json").write_text(content)
    assert cli.run(["calibrate", "--manifest", "m.json", "-o", "p.json"]) == 2
    assert "m.json: is not a manifest" in capsys.readouterr().err


def test_attacks_are_listed_with_the_rules_that_should_catch_them(capsys) -> None:
    assert cli.run(["attack", "--list"]) == 0
    assert "embedding-rows           FTA301" in capsys.readouterr().out


def test_an_unknown_attack_is_refused(elsewhere: Path, capsys) -> None:
    (elsewhere / "base").mkdir()
    assert cli.run(["attack", "nope", "--base", "base", "--out", "out"]) == 2
    assert "known: " in capsys.readouterr().err


def test_doctor_tells_what_is_here_and_what_is_missing(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    assert cli.run(["doctor"]) == 0
    shown = capsys.readouterr().out
    assert "torch" in shown
    assert "HF_TOKEN" in shown
    monkeypatch.setattr(doctor, "_PACKAGES", ("click", "no-such-package"))
    assert cli.run(["doctor"]) == 2
    assert "not installed: no-such-package" in capsys.readouterr().err


def test_doctor_shows_that_a_token_is_set_and_never_the_token(
    monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    cli.run(["doctor", "--network"])
    shown = capsys.readouterr().out
    assert "hf_secret" not in shown
    assert "does not answer" in shown
