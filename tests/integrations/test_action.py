"""The composite GitHub action: its shell steps run as written, and no input becomes code."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from builders import composite
from builders.adapters import write_adapter

ROOT = Path(__file__).parents[2]
ACTION = composite.load(ROOT / "action.yml")
STEPS = ACTION["runs"]["steps"]


@pytest.fixture
def runner(tmp_path: Path) -> composite.Runner:
    runner = composite.Runner.at(tmp_path)
    (runner.workspace / "notes").mkdir()
    (runner.workspace / "notes" / "README.md").write_text("no model here\n")
    (runner.workspace / "bad").mkdir()
    (runner.workspace / "bad" / "x.bin").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    return runner


def audit(runner: composite.Runner, **inputs: str) -> composite.StepResult:
    return runner.run(ACTION, "Audit", {"profile": "quick", **inputs})


def verdict(runner: composite.Runner, outputs: dict[str, str]) -> int:
    return runner.run(ACTION, "Apply the verdict", {}, outputs).exit_code


def test_the_schema_of_actions_accepts_it() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-actions"]
    done = subprocess.run([*command, str(ROOT / "action.yml")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_no_expression_reaches_the_shell_and_every_action_is_pinned() -> None:
    for step in STEPS:
        assert "${{" not in step.get("run", "")
        if "uses" in step:
            assert re.search(r"@[0-9a-f]{40}$", step["uses"])
    used = (ROOT / "action.yml").read_text()
    for name in ACTION["inputs"]:
        assert f"inputs.{name}" in used, "an input that nothing reads"


def test_shellcheck_has_nothing_to_say(tmp_path: Path) -> None:
    if not shutil.which("shellcheck"):
        pytest.skip("needs the program shellcheck")
    for number, step in enumerate(step for step in STEPS if "run" in step):
        script = tmp_path / f"{number}.sh"
        script.write_text("#!/usr/bin/env bash\n" + step["run"])
        done = subprocess.run(
            ["shellcheck", "-S", "warning", str(script)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout


def test_a_failed_audit_leaves_its_reports_and_stops_the_job(runner: composite.Runner) -> None:
    done = audit(runner, model="./notes\n\n  \n./bad\n", formats="sarif, html intoto")
    assert done.exit_code == 0, "the reports are uploaded first"
    assert (done.outputs["verdict"], done.outputs["exit-code"]) == ("fail", "1")
    reports = [json.loads(line) for line in Path(done.outputs["report"]).read_text().splitlines()]
    assert [report["verdict"] for report in reports] == ["inconclusive", "fail"]
    logs = [json.loads(path.read_text()) for path in Path(done.outputs["sarif"]).iterdir()]
    assert {log["version"] for log in logs} == {"2.1.0"}
    assert len(list((Path(done.outputs["folder"]) / "html").iterdir())) == 2
    statement = (Path(done.outputs["folder"]) / "report.intoto.jsonl").read_text().splitlines()[0]
    assert json.loads(statement)["_type"] == "https://in-toto.io/Statement/v1"
    assert "ftsec-audit: FAIL" in done.summary
    assert "FTA401" in done.summary
    assert verdict(runner, done.outputs) == 1


def test_a_clean_adapter_passes(runner: composite.Runner) -> None:
    write_adapter(runner.workspace / "adapter")
    done = audit(runner, model="./adapter", formats="", output="kept")
    assert (done.outputs["verdict"], done.outputs["exit-code"]) == ("pass", "0")
    assert done.outputs["report"] == "kept/report.jsonl"
    assert "sarif" not in done.outputs
    assert verdict(runner, done.outputs) == 0


@pytest.mark.parametrize(
    "inputs",
    [
        {"model": '"; touch owned; echo "$(touch owned)`touch owned`'},
        {"model": "--exit-zero"},
        {"model": "./bad", "revision": "$(touch owned)"},
        {"model": "./notes", "policy": "x; touch owned"},
        {"model": ""},
        {"model": "./notes", "formats": "$(touch owned) *"},
    ],
)
def test_hostile_inputs_are_data(runner: composite.Runner, inputs: dict[str, str]) -> None:
    done = audit(runner, **inputs)
    assert done.exit_code == 0
    assert (done.outputs["verdict"], done.outputs["exit-code"]) == ("error", "2")
    assert "could not run" in done.summary
    assert sorted(path.name for path in runner.workspace.iterdir()) == ["bad", "notes"]
    assert verdict(runner, done.outputs) == 2


def test_an_output_folder_cannot_forge_an_output(runner: composite.Runner) -> None:
    done = audit(runner, model="./bad", output="here\nverdict=pass", formats="")
    assert done.outputs["verdict"] == "fail"


def test_without_an_audit_the_verdict_is_no_pass(runner: composite.Runner) -> None:
    assert verdict(runner, {}) == 2
