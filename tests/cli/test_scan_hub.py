"""`ftsec-audit scan org/model` with the genuine Hub client against a Hub on this machine."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from builders.adapters import write_adapter, write_checkpoint
from hub_server import Fault, HubServer

from ftsec_audit import cli


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A Hub with `org/adapter`, which declares `org/base`."""
    for variable in (
        "HF_TOKEN",
        "HF_HUB_OFFLINE",
        "TRANSFORMERS_OFFLINE",
        "HF_HUB_CACHE",
        "HUGGINGFACE_HUB_CACHE",
    ):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("FTSEC_AUDIT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setattr("ftsec_audit.sources.transfer.sleep", lambda seconds: None)
    adapter = write_adapter(tmp_path / "adapter", base_model_name_or_path="org/base")
    base = write_checkpoint(tmp_path / "base", vocab=4096, width=128)
    with HubServer() as server:
        server.add("org/adapter", {path.name: path for path in adapter.iterdir()})
        server.add("org/base", {path.name: path for path in base.iterdir()})
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
        yield server


def transferred(errors: str) -> int:
    match = re.search(r"transferred ([\d,]+) bytes in \d+ requests", errors)
    assert match, errors
    return int(match[1].replace(",", ""))


def test_the_first_run_fetches_the_adapter_and_the_second_next_to_nothing(hub: HubServer, capsys) -> None:
    assert cli.run(["scan", "org/adapter", "--profile", "quick", "-v"]) == 0
    first = capsys.readouterr()
    assert transferred(first.err) == hub.log.bytes_sent()
    commit = hub.repositories["org/adapter"].refs["main"].sha
    assert f"org/adapter@{commit[:7]}" in first.out
    hub.log.clear()
    assert cli.run(["scan", "org/adapter", "--profile", "quick", "-v"]) == 0
    second = capsys.readouterr()
    assert transferred(second.err) == hub.log.bytes_sent() < 3000
    assert second.out == first.out


def test_a_pinned_scan_needs_no_network_the_second_time(hub: HubServer, capsys) -> None:
    commit = hub.repositories["org/adapter"].refs["main"].sha
    assert cli.run(["scan", f"org/adapter@{commit}", "--profile", "quick"]) == 0
    hub.log.clear()
    assert cli.run(["scan", f"org/adapter@{commit}", "--profile", "quick", "--offline"]) == 0
    assert len(hub.log) == 0


def test_the_declared_base_is_found_and_not_downloaded(hub: HubServer, capsys) -> None:
    cli.run(["scan", "org/adapter", "-f", "json"])
    report = json.loads(capsys.readouterr().out)
    assert report["base"]["resolved"].startswith("org/base@")
    weights = Path("../base/model.safetensors").stat().st_size
    assert sum(request.sent for request in hub.log.of("org/base")) < 0.05 * weights


@pytest.mark.parametrize(
    ("reference", "complaint"),
    [
        ("org/absent", "no such repository"),
        ("org/adapter@absent", "no branch, tag or commit"),
        ("not a name", "neither an existing path nor"),
        ("gs://bucket/key", "cannot fetch from gs"),
    ],
)
def test_what_is_not_there_exits_2_and_says_so(
    hub: HubServer, reference: str, complaint: str, capsys
) -> None:
    assert cli.run(["scan", reference, "--profile", "quick"]) == 2
    shown = capsys.readouterr()
    assert complaint in shown.err
    assert shown.out == ""


@pytest.mark.parametrize("status", [401, 429, 503])
def test_a_hub_that_refuses_exits_2(hub: HubServer, status: int, capsys) -> None:
    hub.faults.append(Fault(status=status))
    assert cli.run(["scan", "org/adapter", "--profile", "quick"]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_a_base_that_cannot_be_had_is_inconclusive(hub: HubServer, capsys) -> None:
    hub.faults.append(Fault(path="*org/base*", status=404))
    assert cli.run(["scan", "org/adapter"]) == 3
    assert "the declared base cannot be had" in capsys.readouterr().out


def test_offline_without_a_cache_exits_2(hub: HubServer, capsys) -> None:
    assert cli.run(["scan", "org/adapter", "--offline"]) == 2
    assert len(hub.log) == 0
