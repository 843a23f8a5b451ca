"""The hooks, run by the genuine pre-commit in a repository of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from builders.adapters import write_adapter
from pre_commit.clientlib import load_manifest

ROOT = Path(__file__).parents[2]
HOOKS = ROOT / ".pre-commit-hooks.yaml"


def test_the_manifest_is_valid_and_names_commands_that_exist() -> None:
    from ftsec_audit.cli import cli

    for hook in load_manifest(HOOKS):
        program, command = hook["entry"].split()[:2]
        assert program == "ftsec-audit"
        assert cli.get_command(None, command) is not None  # type: ignore[arg-type]


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository that uses every hook, from this working tree instead of a release."""
    if not shutil.which("git"):
        pytest.skip("needs the program git")
    program = tmp_path / "bin" / "ftsec-audit"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m ftsec_audit "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("PRE_COMMIT_HOME", str(tmp_path / "pre-commit"))
    monkeypatch.setenv("FTSEC_AUDIT_CACHE", str(tmp_path / "cache"))
    work = tmp_path / "work"
    work.mkdir()
    subprocess.run(["git", "init", "-q"], cwd=work, check=True)
    hooks = [{**hook, "language": "system"} for hook in yaml.safe_load(HOOKS.read_text())]
    (work / ".pre-commit-config.yaml").write_text(
        yaml.safe_dump({"repos": [{"repo": "local", "hooks": hooks}]})
    )
    return work


def commit_hooks(repository: Path, *hooks: str) -> tuple[int, str]:
    subprocess.run(["git", "add", "-A"], cwd=repository, check=True)
    command = [sys.executable, "-m", "pre_commit", "run", "--color", "never"]
    done = subprocess.run([*command, *hooks], cwd=repository, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_a_hostile_file_is_not_committed(repository: Path) -> None:
    (repository / "models" / "bad").mkdir(parents=True)
    (repository / "models" / "bad" / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    code, shown = commit_hooks(repository, "ftsec-audit")
    assert code == 1
    assert "FTA401" in shown


def test_a_clean_adapter_is_scanned_once_and_passes(repository: Path) -> None:
    write_adapter(repository / "models" / "adapter")
    code, shown = commit_hooks(repository, "ftsec-audit", "--verbose")
    assert code == 0, shown
    assert shown.count("PASS ") == 1, "three files, one folder"


def test_lists_and_policies_are_checked(repository: Path) -> None:
    (repository / "models.yaml").write_text("models:\n  - org/model@main\n")
    (repository / "policy.yaml").write_text("version: 1\nfail: [{severity: hihg}]\n")
    code, shown = commit_hooks(repository, "ftsec-audit-pin")
    assert code == 1
    assert "models.yaml:2: org/model@main names no commit" in shown
    code, shown = commit_hooks(repository, "ftsec-audit-policy")
    assert code == 1
    assert "line 2: fail[0].severity" in shown
