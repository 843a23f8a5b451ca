"""Runs the shell steps of a composite action as written, in the environment that a runner gives them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

_INPUT = re.compile(r"\$\{\{ inputs\.([\w-]+) \}\}")
_OUTPUT = re.compile(r"\$\{\{ steps\.[\w-]+\.outputs\.([\w-]+) \}\}")


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """What one step left behind."""

    exit_code: int
    outputs: dict[str, str]
    summary: str
    shown: str


@dataclass(frozen=True, kw_only=True)
class Runner:
    """A working directory, and the files through which steps speak to the runner."""

    root: Path
    workspace: Path

    @classmethod
    def at(cls, root: Path) -> Runner:
        for name in ("temp", "bin", "workspace"):
            (root / name).mkdir(parents=True)
        program = root / "bin" / "ftsec-audit"
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m ftsec_audit "$@"\n')
        program.chmod(0o755)
        return cls(root=root, workspace=root / "workspace")

    def run(
        self, action: dict[str, Any], name: str, inputs: dict[str, str], outputs: dict[str, str] | None = None
    ) -> StepResult:
        """One step of the action, by name, with these inputs over the defaults."""
        [step] = [step for step in action["runs"]["steps"] if step["name"] == name]
        given = {key: str(value.get("default", "")) for key, value in action["inputs"].items()} | inputs
        written, summary = self.root / "output", self.root / "summary"
        for file in (written, summary):
            file.write_text("")
        source = Path(__file__).parents[2]
        env = {
            **{key: value for key, value in os.environ.items() if not key.startswith("FTSEC_AUDIT_")},
            "PATH": f"{self.root / 'bin'}:{os.environ['PATH']}",
            "PYTHONPATH": str(source),
            "FTSEC_AUDIT_CACHE": str(self.root / "cache"),
            "RUNNER_TEMP": str(self.root / "temp"),
            "GITHUB_OUTPUT": str(written),
            "GITHUB_STEP_SUMMARY": str(summary),
        }
        for key, expression in step.get("env", {}).items():
            filled = _INPUT.sub(lambda match: given[match[1]], expression)
            env[key] = _OUTPUT.sub(lambda match: (outputs or {}).get(match[1], ""), filled)
        script = self.root / "step.sh"
        script.write_text(step["run"])
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", str(script)],
            cwd=self.workspace,
            env=env,
            capture_output=True,
            text=True,
            check=False,
        )
        pairs = [line.partition("=") for line in written.read_text().splitlines()]
        return StepResult(
            exit_code=done.returncode,
            outputs={key: value for key, _, value in pairs},
            summary=summary.read_text(),
            shown=done.stdout + done.stderr,
        )


def load(path: Path) -> dict[str, Any]:
    action: dict[str, Any] = yaml.safe_load(path.read_text())
    return action
