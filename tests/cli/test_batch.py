"""`ftsec-audit batch` with real workers and the genuine Hub client against a Hub on this machine."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from builders.adapters import write_adapter
from builders.hubs import adapters_on_hub, hub_process, separate, with_tests
from hub_server import Fault, HubServer

import ftsec_audit as fa
from ftsec_audit import cli

QUICK = ("--profile", "quick", "--store", "results", "--no-progress")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with adapters_on_hub(tmp_path, monkeypatch) as server:
        yield server


def documents(store: Path = Path("results")) -> dict[str, tuple[bytes, int]]:
    """Name → content and time of the last change."""
    found = store.glob("*/[0-9a-f]*.json")
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in found}


def summary(*arguments: str, code: int = 0) -> dict[str, object]:
    assert cli.run(["batch", *arguments, *QUICK, "-f", "json=summary.json"]) == code
    content: dict[str, object] = json.loads(Path("summary.json").read_text())
    return content


def test_a_list_standard_input_and_a_query_share_what_is_finished(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("models.txt").write_text("org/a0\n# a remark\n\norg/a1\nmirror/a0\n")
    first = summary("models.txt", "-j", "1", "--events", "events.jsonl")
    assert (first["references"], first["artifacts"], first["duplicates"]) == (3, 2, 1)
    assert first["verdicts"] == {"pass": 2, "fail": 0, "inconclusive": 0}
    told = [json.loads(line)["event"] for line in Path("events.jsonl").read_text().splitlines()]
    assert told == ["planned", "done", "done", "finished"]
    kept = documents()
    monkeypatch.setattr(sys, "stdin", io.StringIO('org/a1\n{"model": "mirror/a0"}\n'))
    assert summary("-")["finished_before"] == 2
    assert documents() == kept
    queried = summary("--author", "org", "--hub-filter", "peft", "--since", "2026-02-02", "-j", "1")
    assert (queried["references"], queried["finished_before"]) == (3, 1)
    assert len(documents()) == 4
    capsys.readouterr()
    assert cli.run(["batch", "org/a0", "org/none", *QUICK, "--dry-run"]) == 2
    shown = capsys.readouterr().out
    assert "1 are finished, 0 to be scanned" in shown
    assert "org/none: " in shown
    assert cli.run(["report", "--store", "results"]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert len(listed) == 4
    assert all(any(f"org/a{number}" in line for line in listed) for number in range(4))
    alone = fa.scan("org/a0", profile="quick")
    stored = next(r for r in fa.scan_many(["org/a0"], store="results", profile="quick"))
    assert (stored.findings, stored.measurements) == (alone.findings, alone.measurements)


def test_what_cannot_be_had_is_listed_and_exits_2(hub: HubServer, capsys: pytest.CaptureFixture[str]) -> None:
    result = summary("org/none", "s3://bucket/key", code=2)
    assert result["failures"] == {"source": 2}
    capsys.readouterr()
    assert cli.run(["report", "--store", "results", "--failed"]) == 2
    assert "no such repository" in capsys.readouterr().out
    with pytest.raises(fa.FtsecError, match="1 artifacts have no report"):
        list(fa.scan_many(["org/none"], store="results", profile="quick"))


def test_shards_share_out_the_list_without_overlap(
    hub: HubServer, capsys: pytest.CaptureFixture[str]
) -> None:
    counts = []
    for shard in ("1/3", "2/3", "3/3"):
        names = [f"org/a{number}" for number in range(4)]
        cli.run(["batch", *names, *QUICK, "--shard", shard, "--dry-run"])
        counts.append(int(capsys.readouterr().out.split()[0]))
    assert sum(counts) == 4


def test_a_busy_hub_is_waited_for_as_long_as_it_asks(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr("ftsec_audit.sources.transfer.sleep", waits.append)
    hub.faults.append(Fault(status=429, headers={"Retry-After": "7"}, times=3))
    assert cli.run(["batch", "org/a0", "org/a1", *QUICK, "--dry-run"]) == 0
    assert waits == [7.0, 7.0, 7.0]


def test_a_policy_with_a_triage_is_told_of_beforehand(
    hub: HubServer, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("policy.yaml").write_text("version: 1\ntriage: {first: quick, min_suspicion: 0.9}\n")
    command = ["batch", "org/a0", "--policy", "policy.yaml", "--dry-run"]
    assert cli.run(command) == 0
    assert "profile quick first; standard for what its triage asks" in capsys.readouterr().out
    assert cli.run([*command, "--profile", "quick"]) == 0
    assert "first" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--shard", "3/2", "x"],
        ["x", "-f", "sarif"],
        ["x", "--executor", "slurm"],
        ["x", "--since", "soon"],
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_asked(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.run(["batch", *arguments, "--offline"]) in (0, 2)
    assert not list(tmp_path.iterdir())


def test_a_hub_killed_in_the_middle_costs_what_was_under_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    separate(tmp_path, monkeypatch)
    served = tmp_path / "served"
    for number in range(3):
        write_adapter(served / "org" / f"a{number}", seed=number)
    monkeypatch.setenv("FTSEC_AUDIT_PATIENCE", "0.1")
    process, endpoint = hub_process(served, delay=1.0)
    command = [sys.executable, "-m", "ftsec_audit", "batch", "--author", "org", "-j", "1", *QUICK]
    batch = subprocess.Popen(command, env=with_tests({"HF_ENDPOINT": endpoint}), stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not documents() and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert batch.wait(180) == 2
    lost = [json.loads(content) for name, (content, _) in documents().items() if "failed" in name]
    assert lost and all(one["failure"]["kind"] == "source" for one in lost)
    kept = {name: content for name, content in documents().items() if "failed" not in name}
    assert 1 <= len(kept) < 3
    process, endpoint = hub_process(served)
    try:
        again = subprocess.run(command, env=with_tests({"HF_ENDPOINT": endpoint}), check=False, timeout=180)
    finally:
        process.kill()
        process.wait()
    assert again.returncode == 0
    reports = {name: content for name, content in documents().items() if "failed" not in name}
    assert len(reports) == 3
    assert {name: reports[name] for name in kept} == kept
