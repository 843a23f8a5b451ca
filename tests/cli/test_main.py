"""The command line as a whole: help, start-up, errors without tracebacks, exit codes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ftsec_audit import api, cli
from ftsec_audit.cli import exit_codes, terminal
from ftsec_audit.types import Verdict

HEAVY = (
    "torch",
    "transformers",
    "peft",
    "numpy",
    "pydantic",
    "rich",
    "jinja2",
    "huggingface_hub",
    "sklearn",
    "boto3",
)


def imported_by(code: str) -> set[str]:
    """Top-level modules that a fresh interpreter has loaded after `code`."""
    script = f"import sys\n{code}\nprint('\\n' + ' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in done.stdout.splitlines()[-1].split()}


@pytest.mark.parametrize(
    "code",
    [
        "import ftsec_audit",
        "import ftsec_audit.api",
        "from ftsec_audit import cli; cli.run(['--help'])",
        "from ftsec_audit import cli; cli.run(['scan', '--help'])",
        "from ftsec_audit import cli; cli.run(['rules'])",
        "from ftsec_audit import cli; cli.run(['explain', 'FTA301'])",
    ],
)
def test_nothing_heavy_is_imported_to_show_text(code: str) -> None:
    assert imported_by(code).isdisjoint(HEAVY)


def test_a_scan_of_one_target_imports_no_pool(tmp_path: Path) -> None:
    code = "import sys; from ftsec_audit import cli; cli.run(sys.argv[1:]); "
    command = [
        sys.executable,
        "-c",
        f"{code}print('ftsec_audit.batch.pool' in sys.modules)",
        "scan",
        str(tmp_path / "absent"),
        "-j",
        "4",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "no such file or directory" in done.stderr
    assert done.stdout == "False\n"


def test_bars_leave_standard_output_to_its_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with terminal.progress(quiet=False, verbose=False, bars=True) as progress:
        progress.start("scan", 2, "artifacts")
        terminal.show("a report")
    assert isinstance(progress, terminal.Bars)
    assert capsys.readouterr().out == "a report\n"


@pytest.mark.parametrize(
    "command", ["scan", "report", "rules", "explain", "policy", "calibrate", "attack", "cache"]
)
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run([command, "--help"]) == 0
    assert "Usage: ftsec-audit " + command in capsys.readouterr().out


def test_help_lists_every_command_with_its_purpose(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["--help"]) == 0
    shown = capsys.readouterr().out
    for name in ("scan", "report", "rules", "explain", "policy", "calibrate", "attack", "cache", "doctor"):
        assert f"\n  {name}" in shown


@pytest.mark.parametrize(
    "arguments",
    [
        ["no-such-command"],
        ["scan", "--no-such-flag"],
        ["scan", "-r", "absent.yaml"],
        ["scan", "--profile", "thorough", "x"],
        ["scan", "--max-bytes", "much", "x"],
        ["scan", "--max-time", "long", "x"],
        ["scan", "-f", "pdf", "x"],
        ["scan", "-f", "json", "-f", "sarif", "x"],
        ["scan", "-f", "json", "x", "y"],
        ["scan", "--strict", "--policy", "default", "x"],
        ["scan", "--policy", "absent.yaml", "x"],
        ["scan", "./absent"],
        ["scan", "--base", "b", "--no-base", "x"],
        ["explain", "FTA999"],
        ["policy", "check", "absent.yaml"],
        ["report", "absent.json"],
        ["attack", "embedding-rows"],
    ],
)
def test_what_cannot_run_exits_2_with_one_message(
    arguments: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.run(arguments) == exit_codes.COULD_NOT_RUN
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "rror: " in shown.err
    assert "Traceback" not in shown.err


def test_a_bug_exits_2_and_is_not_mistaken_for_a_failed_policy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(api, "rules", lambda: 1 / 0)
    assert cli.run(["rules"]) == exit_codes.COULD_NOT_RUN
    assert "internal error" in capsys.readouterr().err


def test_error_messages_cannot_move_the_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["scan", "./\x1b[2Jabsent"]) == exit_codes.COULD_NOT_RUN
    assert "\x1b" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("codes", "worst"),
    [([], 0), ([0, 0], 0), ([0, 3], 3), ([3, 2], 2), ([2, 1, 3, 0], 1)],
)
def test_of_several_targets_the_most_decisive_counts(codes: list[int], worst: int) -> None:
    assert exit_codes.worst(codes) == worst


def test_exit_zero_forgives_verdicts() -> None:
    assert [exit_codes.of_verdict(v) for v in Verdict] == [0, 1, 3]
    assert [exit_codes.of_verdict(v, exit_zero=True) for v in Verdict] == [0, 0, 0]


def test_rules_can_be_filtered_and_read_by_machines(capsys: pytest.CaptureFixture[str]) -> None:
    import json

    assert cli.run(["rules", "fta4", "--json"]) == 0
    records = json.loads(capsys.readouterr().out)
    assert records
    assert all(record["id"].startswith("FTA4") and record["references"] for record in records)


def test_every_rule_has_a_page(capsys: pytest.CaptureFixture[str]) -> None:
    for rule in api.rules():
        assert cli.run(["explain", rule.id.lower()]) == 0
        shown = capsys.readouterr().out
        assert rule.question in shown
        assert rule.remediation in shown
        assert "MITRE ATLAS" in shown


def test_a_reader_that_goes_away_is_no_error() -> None:
    command = [sys.executable, "-m", "ftsec_audit", "rules"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        errors = process.stderr.read()
    assert process.returncode == 0
    assert errors == b""


def test_a_terminal_without_unicode_is_no_error() -> None:
    env = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(
        [sys.executable, "-m", "ftsec_audit", "--help"], capture_output=True, env=env, check=False
    )
    assert done.returncode == 0


class TestCache:
    def test_info_and_clear(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("FTSEC_AUDIT_CACHE", str(tmp_path))
        (tmp_path / "measured-x.json").write_text("12345")
        assert cli.run(["cache", "info"]) == 0
        assert "1 measurements, 5 bytes" in capsys.readouterr().out
        assert cli.run(["cache", "clear"]) == 0
        assert list(tmp_path.iterdir()) == []
