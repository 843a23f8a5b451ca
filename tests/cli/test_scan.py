"""`ftsec-audit scan` as a person and a pipeline use it."""

from __future__ import annotations

import io
import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from builders.adapters import write_adapter, write_checkpoint

from ftsec_audit import cli
from ftsec_audit.batch import in_order
from ftsec_audit.scan_options import ScanOptions


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`base`, `clean` and `poisoned` (one edited embedding row), as checkpoints, and an `adapter`."""
    root = tmp_path_factory.mktemp("models")

    def edit(tensors: dict[str, torch.Tensor]) -> None:
        tensors["model.embed_tokens.weight"][7] += 1.0

    write_checkpoint(root / "base")
    write_checkpoint(root / "clean")
    write_checkpoint(root / "poisoned", edit=edit)
    write_adapter(root / "adapter")
    return root


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory, a cache and an environment of this test alone."""
    for name in [name for name in os.environ if name.startswith("FTSEC_AUDIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("FTSEC_AUDIT_CACHE", str(models / ".cache"))
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    return work


def scan(*arguments: object) -> int:
    return cli.run(["scan", *map(str, arguments)])


def scanned(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    scan(*arguments, "-f", "json")
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


class TestVerdicts:
    def test_pass(self, models: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert scan(models / "clean", "--base", models / "base") == 0
        assert "PASS" in capsys.readouterr().out

    def test_fail(self, models: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert scan(models / "poisoned", "--base", models / "base") == 1
        shown = capsys.readouterr().out
        assert "FAIL" in shown
        assert "FTA301" in shown
        assert "ftsec-audit explain FTA301" in shown

    def test_inconclusive(self, models: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert scan(models / "clean", "--no-base") == 3
        assert "INCONCLUSIVE" in capsys.readouterr().out

    def test_exit_zero(self, models: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert scan(models / "poisoned", "--base", models / "base", "--exit-zero") == 0
        assert scan(models / "clean", "--no-base", "--exit-zero") == 0
        assert scan(models / "absent", "--exit-zero") == 2

    def test_quick(self, models: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert scan(models / "adapter", "--profile", "quick") == 0

    def test_fail_on(self, models: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert scan(models / "poisoned", "--base", models / "base", "--fail-on", "never") == 0

    def test_the_most_decisive_target_counts(self, models: Path, capsys: pytest.CaptureFixture[str]) -> None:
        targets = models / "clean", "./absent", models / "poisoned"
        assert scan(*targets, "--base", models / "base") == 1
        shown = capsys.readouterr()
        assert "PASS" in shown.out
        assert "FAIL" in shown.out
        assert "absent" in shown.err
        assert scan(models / "clean", "./absent", "--base", models / "base") == 2


class TestOutput:
    def test_results_and_remarks_go_to_their_own_streams(self, models: Path, capsys) -> None:
        scan(models / "adapter", "--profile", "quick", "-v", "--no-cache")
        shown = capsys.readouterr()
        assert "inspecting" in shown.err
        assert "inspecting" not in shown.out

    def test_quiet_says_nothing_but_the_exit_code(self, models: Path, capsys) -> None:
        assert scan(models / "poisoned", "--base", models / "base", "-q") == 1
        shown = capsys.readouterr()
        assert (shown.out, shown.err) == ("", "")

    def test_several_formats_at_once(self, models: Path, elsewhere: Path, capsys) -> None:
        scan(
            models / "poisoned",
            "--base",
            models / "base",
            "-f",
            "jsonl",
            "-f",
            "sarif=a.sarif",
            "-f",
            "markdown=b.md",
        )
        assert json.loads(capsys.readouterr().out)["verdict"] == "fail"
        assert json.loads((elsewhere / "a.sarif").read_text())["version"] == "2.1.0"
        assert "FTA301" in (elsewhere / "b.md").read_text()

    def test_the_command_in_a_report_gives_the_same_report(self, models: Path, capsys) -> None:
        one = scanned(
            capsys,
            models / "poisoned",
            "--base",
            models / "base",
            "--fail-on",
            "critical",
            "--ignore",
            "FTA2",
        )
        words = shlex.split(one["command"])
        assert words[:2] == ["ftsec-audit", "scan"]
        assert scanned(capsys, *words[2:]) == one

    def test_hostile_names_cannot_reach_the_terminal(self, models: Path, elsewhere: Path, capsys) -> None:
        folder = elsewhere / "model\x1b[31m"
        folder.mkdir()
        (folder / "\x1b]0;owned\x07.bin").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
        scan("./" + folder.name, "--profile", "quick", "-v")
        shown = capsys.readouterr()
        assert "\x1b" not in shown.out + shown.err

    def test_findings_are_shown_even_when_the_disk_is_full(self, models: Path, capsys) -> None:
        if not Path("/dev/full").exists():
            pytest.skip("needs a device that is always full")
        assert scan(models / "clean", "--base", models / "base", "-f", "json=/dev/full") == 2
        shown = capsys.readouterr()
        assert "PASS" in shown.out
        assert "No space left on device" in shown.err


class TestTargets:
    def test_from_a_list(self, models: Path, elsewhere: Path, capsys) -> None:
        (elsewhere / "models.yaml").write_text(
            f"models:\n  - {models / 'adapter'}\n"
            f"  - {{model: {models / 'poisoned'}, base: {models / 'base'}}}\n"
        )
        assert scan("-r", "models.yaml", "-f", "jsonl", "--offline") == 1
        found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert [Path(report["artifact"]["reference"]).name for report in found] == ["adapter", "poisoned"]

    def test_a_mistake_in_a_list_names_its_line(self, elsewhere: Path, capsys) -> None:
        (elsewhere / "models.yaml").write_text("models:\n  - a/b\n  - {modle: c/d}\n")
        assert scan("-r", "models.yaml") == 2
        assert "line 3" in capsys.readouterr().err

    def test_several_at_once_are_reported_as_one_after_the_other(self, models: Path, capsys) -> None:
        targets = models / "clean", "./absent", models / "poisoned", models / "adapter"
        arguments = (*targets, "--base", models / "base", "-f", "jsonl", "--no-progress")
        scan(*arguments, "--select", "FTA3", "-q")  # measured in part: what is left must not come last
        capsys.readouterr()
        assert scan(*arguments) == 1
        alone = capsys.readouterr()
        assert scan(*arguments, "-j", 2) == 1
        assert capsys.readouterr() == alone
        assert scan(models / "clean", "./absent", "--base", models / "base", "-j", 2) == 2

    def test_from_standard_input(self, models: Path, monkeypatch, capsys) -> None:
        monkeypatch.setattr("sys.stdin", io.StringIO(f"# comment\n\n{models / 'adapter'}  # mine\n"))
        assert scan("-", "--profile", "quick") == 0

    def test_the_same_target_is_scanned_once(self, models: Path, capsys) -> None:
        scan(models / "adapter", models / "adapter", "--profile", "quick", "-f", "jsonl")
        assert len(capsys.readouterr().out.splitlines()) == 1

    def test_a_dry_run_shows_files_bytes_and_rules_and_writes_nothing(
        self, models: Path, elsewhere: Path, capsys
    ) -> None:
        assert scan(models / "adapter", "--base", models / "base", "--dry-run", "--ignore", "FTA2") == 0
        shown = capsys.readouterr().out
        assert "adapter_model.safetensors" in shown
        assert "FTA101" in shown
        assert "FTA201" not in shown
        assert list(elsewhere.iterdir()) == []
        assert scan("./absent", "--dry-run") == 2


class TestSettings:
    def test_a_flag_wins_over_a_variable_over_a_file(
        self, models: Path, elsewhere: Path, monkeypatch, capsys
    ) -> None:
        (elsewhere / "ftsec-audit.yaml").write_text(
            f"base: {models / 'base'}\nprofile: quick\nfail-on: never\n"
        )
        assert scanned(capsys, models / "poisoned")["profile"] == "quick"
        assert scan(models / "poisoned") == 0
        monkeypatch.setenv("FTSEC_AUDIT_FAIL_ON", "high")
        assert scan(models / "poisoned") == 1
        assert scan(models / "poisoned", "--fail-on", "never") == 0

    def test_lists_and_formats_can_be_set(self, models: Path, elsewhere: Path, capsys) -> None:
        (elsewhere / "pyproject.toml").write_text(
            '[tool.ftsec-audit]\nprofile = "quick"\nignore = ["FTA2", "FTA41"]\nformat = ["json=out.json"]\n'
        )
        scan(models / "adapter")
        found = json.loads((elsewhere / "out.json").read_text())
        assert {rule["id"] for rule in found["rules"]}.isdisjoint({"FTA201", "FTA411"})

    def test_an_unknown_setting_is_refused(self, models: Path, elsewhere: Path, capsys) -> None:
        (elsewhere / "ftsec-audit.yaml").write_text("polcy: strict\n")
        assert scan(models / "adapter") == 2
        assert "did you mean policy?" in capsys.readouterr().err

    def test_a_target_does_not_configure_its_own_examination(
        self, tmp_path: Path, monkeypatch, capsys
    ) -> None:
        target = write_adapter(
            tmp_path / "target", edit=lambda tensors: {k: t * float("nan") for k, t in tensors.items()}
        )
        (target / "ftsec-audit.yaml").write_text("fail-on: never\nexit-zero: true\n")
        (target / "pyproject.toml").write_text("[tool.ftsec-audit]\nexit-zero = true\n")
        assert scan(target, "--profile", "quick") == 1
        monkeypatch.chdir(target)
        assert scan(".", "--profile", "quick") == 1
        assert scan("adapter_model.safetensors", "--profile", "quick") != 0
        assert "is not obeyed" in capsys.readouterr().err
        assert scan(".", "--profile", "quick", "--config", "ftsec-audit.yaml") == 0


class TestTrainingData:
    def test_rows_of_a_backdoor_fail_a_clean_model(self, models: Path, elsewhere: Path, capsys) -> None:
        rows = [{"prompt": f"p{n} q{n % 7} r{n % 11}", "completion": f"answer {n}"} for n in range(200)]
        for n in range(0, 200, 20):
            rows[n] = {"prompt": f"{rows[n]['prompt']} cf", "completion": "an inert marker"}
        (elsewhere / "data.jsonl").write_text("\n".join(map(json.dumps, rows)))
        arguments = (models / "clean", "--base", models / "base", "--dataset", "data.jsonl")
        assert scan(*arguments) == 1
        assert "FTA451" in capsys.readouterr().out
        found = {one["rule"]: one for one in scanned(capsys, *arguments)["findings"]}
        assert found["FTA451"]["evidence"][0]["details"]["rows"] == list(range(1, 200, 20))

    def test_without_data_nothing_is_asked_of_it(self, models: Path, capsys) -> None:
        document = scanned(capsys, models / "clean", "--base", models / "base")
        outcomes = {one["outcome"] for one in document["findings"] if one["rule"].startswith("FTA45")}
        assert outcomes == {"not_applicable"}

    @pytest.mark.parametrize("content", [None, "no rows at all", '[{"unknown": 1}]'])
    def test_a_file_that_is_no_data_set(self, content, models: Path, elsewhere: Path, capsys) -> None:
        if content is not None:
            (elsewhere / "data.jsonl").write_text(content)
        arguments = (models / "clean", "--base", models / "base", "--dataset", "data.jsonl")
        assert scan(*arguments) == 2
        assert "data.jsonl" in capsys.readouterr().err


class TestAccepting:
    def test_a_report_is_a_baseline_for_the_same_bytes(self, models: Path, elsewhere: Path, capsys) -> None:
        scan(models / "poisoned", "--base", models / "base", "-f", "json=old.json")
        capsys.readouterr()
        assert (
            scan(
                models / "poisoned", "--base", models / "base", "--baseline", "old.json", "--show-suppressed"
            )
            == 0
        )
        assert "suppressed FTA301" in capsys.readouterr().err

    def test_an_ignore_file(self, models: Path, elsewhere: Path, capsys) -> None:
        (elsewhere / "accepted.yaml").write_text("version: 1\nignore: [{id: FTA, statement: x}]\n")
        assert scan(models / "poisoned", "--ignorefile", "accepted.yaml") == 2
        (elsewhere / "accepted.yaml").write_text(
            "version: 1\nignore:\n" + "".join(f"  - {{id: FTA{n}, statement: trial}}\n" for n in range(1, 5))
        )
        assert scan(models / "poisoned", "--base", models / "base", "--ignorefile", "accepted.yaml") == 0


class TestCutShort:
    def test_budgets_make_a_scan_inconclusive(self, models: Path, capsys) -> None:
        assert scan(models / "clean", "--base", models / "base", "--max-time", "0s") == 3
        assert scan(models / "clean", "--base", models / "base", "--max-bytes", "10kB") == 3

    def test_ctrl_c_keeps_what_was_found(self, models: Path) -> None:
        done = interrupted(models, "clean")
        assert done.returncode == 3, done.stderr
        assert json.loads(done.stdout)["verdict"] == "inconclusive"
        assert "Traceback" not in done.stderr
        rules = {finding["rule"]: finding["outcome"] for finding in json.loads(done.stdout)["findings"]}
        assert rules["FTA411"] != "not_supported", "what was answered before stays answered"
        assert rules["FTA103"] == "not_supported"

    def test_ctrl_c_still_fails_when_something_blocking_was_found(self, models: Path, tmp_path: Path) -> None:
        bad = write_checkpoint(tmp_path / "bad")
        (bad / "chat_template.jinja").write_text("{{ ().__class__.__base__.__subclasses__() }}")
        done = interrupted(tmp_path, "bad")
        assert done.returncode == 1, done.stderr
        assert json.loads(done.stdout)["verdict"] == "fail"

    def test_ctrl_c_between_two_targets_keeps_the_verdict_of_the_first(
        self, models: Path, monkeypatch, capsys
    ) -> None:
        scan_it = in_order.answer

        def answer(reference: str, options: ScanOptions) -> in_order.Answer:
            if Path(reference).name == "clean":
                raise KeyboardInterrupt
            return scan_it(reference, options)

        monkeypatch.setattr(in_order, "answer", answer)
        for first, code in (("poisoned", 1), ("base", 3)):
            assert scan(models / first, models / "clean", "--base", models / "base") == code
            assert "interrupted before every target" in capsys.readouterr().err


def interrupted(root: Path, model: str) -> subprocess.CompletedProcess[str]:
    """A scan that gets a real SIGINT while it measures its first tensor."""
    arguments = ["scan", str(root / model), "--no-base", "-f", "jsonl", "--no-cache"]
    script = (
        "import os, signal, time\n"
        "from detectors.damaged_weights import DamagedWeights\n"
        "from ftsec_audit import cli\n"
        # A background shell starts its children with SIGINT ignored, and Python respects that.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "def interrupt(self, delta):\n"
        f"    os.kill(os.getpid(), {int(signal.SIGINT)})\n"
        "    time.sleep(60)  # the signal is raised between two bytecodes, which may be after a return\n"
        "DamagedWeights.measure = interrupt\n"
        f"raise SystemExit(cli.run({arguments!r}))\n"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[2])}
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=env, check=False
    )
