"""The genuine `hf` command line runs this program as its extension."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_hf_passes_arguments_and_exit_codes_on(tmp_path: Path) -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    module, _, function = scripts["hf-ftsec-audit"].partition(":")
    folder = tmp_path / ".local" / "share" / "hf" / "extensions" / "hf-ftsec-audit"
    folder.mkdir(parents=True)
    program = folder / "hf-ftsec-audit"
    program.write_text(f"#!{sys.executable}\nfrom {module} import {function}\n{function}()\n")
    program.chmod(0o755)
    manifest = {
        "owner": "acme",
        "repo": "hf-ftsec-audit",
        "repo_id": "acme/hf-ftsec-audit",
        "short_name": "ftsec-audit",
        "executable_path": str(program),
        "type": "python",
        "installed_at": "2026-01-01T00:00:00+00:00",
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    env = {
        **os.environ,
        "HOME": str(tmp_path),
        "PYTHONPATH": str(ROOT),
        "HF_HUB_DISABLE_UPDATE_CHECK": "1",
        "HF_HUB_OFFLINE": "1",
    }
    command = [sys.executable, "-m", "huggingface_hub.cli.hf", "ftsec-audit", "scan", "./absent"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "./absent: no such file or directory" in done.stderr
