"""`ftsec-audit pin` with the genuine Hub client, and scans of the list that it writes."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from builders.adapters import write_adapter
from hub_server import Fault, HubServer

from ftsec_audit import cli

LIST = """\
# Deployed on Mondays.
models:
  - org/adapter@main   # the router
  - {model: "hf://org/adapter@main/sub", base: org/base}

  - ./here             # has no commit
"""


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A Hub with `org/adapter` and `org/base`, and `models.yaml` in the working directory."""
    for variable in ("HF_TOKEN", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_CACHE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("FTSEC_AUDIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("ftsec_audit.sources.transfer.sleep", lambda seconds: None)
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    write_adapter(work / "here")
    (work / "models.yaml").write_text(LIST)
    adapter = write_adapter(tmp_path / "adapter", base_model_name_or_path="org/base")
    with HubServer() as server:
        files = {path.name: path for path in adapter.iterdir()}
        server.add("org/adapter", {**files, **{f"sub/{name}": path for name, path in files.items()}})
        server.add("org/base", {"README.md": b"a base"})
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
        yield server


def commit_of(hub: HubServer, name: str) -> str:
    return hub.repositories[name].refs["main"].sha


def test_every_entry_gets_its_commit_and_nothing_else_changes(hub: HubServer, capsys) -> None:
    path = Path("models.yaml")
    path.chmod(0o640)
    assert cli.run(["pin", "models.yaml"]) == 0
    adapter, base = commit_of(hub, "org/adapter"), commit_of(hub, "org/base")
    assert path.read_text() == LIST.replace("adapter@main", f"adapter@{adapter}").replace(
        "org/base", f"org/base@{base}"
    )
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert f"models.yaml:3: org/adapter@main → org/adapter@{adapter}" in capsys.readouterr().out
    hub.log.clear()
    before = path.stat().st_mtime_ns
    assert cli.run(["pin", "models.yaml"]) == 0
    assert (len(hub.log), path.stat().st_mtime_ns) == (0, before), "what is pinned stays, unasked"


def test_check_asks_nobody_and_changes_nothing(hub: HubServer, capsys) -> None:
    assert cli.run(["pin", "models.yaml", "--check"]) == 1
    assert len(hub.log) == 0
    assert Path("models.yaml").read_text() == LIST
    shown = capsys.readouterr().out.splitlines()
    assert [line.split(":")[1] for line in shown] == ["3", "4", "4"]
    assert cli.run(["pin", "models.yaml"]) == 0
    assert cli.run(["pin", "models.yaml", "--check"]) == 0


def test_what_cannot_be_resolved_is_named_by_line_and_the_rest_is_pinned(hub: HubServer, capsys) -> None:
    hub.faults.append(Fault(path="*org/base*", status=404))
    assert cli.run(["pin", "models.yaml"]) == 2
    assert "models.yaml:4: org/base" in capsys.readouterr().err
    text = Path("models.yaml").read_text()
    assert "adapter@main" not in text
    assert "base: org/base}" in text
    Path("models.yaml").write_text("models: ['not a name']\n")
    assert cli.run(["pin", "models.yaml", "--check"]) == 2
    assert "models.yaml:1: not a name" in capsys.readouterr().err


def test_offline_pins_what_was_seen_before(hub: HubServer, capsys) -> None:
    assert cli.run(["pin", "models.yaml", "--offline"]) == 2
    assert cli.run(["pin", "models.yaml"]) == 0
    pinned = Path("models.yaml").read_text()
    Path("models.yaml").write_text(LIST)
    hub.log.clear()
    assert cli.run(["pin", "models.yaml", "--offline"]) == 0
    assert (len(hub.log), Path("models.yaml").read_text()) == (0, pinned)


def test_a_link_to_a_list_stays_a_link(hub: HubServer) -> None:
    Path("models.yaml").rename("real.yaml")
    Path("models.yaml").symlink_to("real.yaml")
    assert cli.run(["pin", "models.yaml"]) == 0
    assert Path("models.yaml").is_symlink()
    assert "@main" not in Path("real.yaml").read_text()


def test_a_scan_of_the_list_points_at_the_pins(hub: HubServer, capsys) -> None:
    Path("models.yaml").write_text("models:\n  - ./here\n\n  - org/adapter@main\n")
    Path("policy.yaml").write_text(
        "version: 1\nfail: [{severity: high}]\nprovenance: {pinned_revision: true}\n"
    )
    scan = ["scan", "-r", "models.yaml", "--profile", "quick", "--policy", "policy.yaml", "-f", "sarif=out/"]
    assert cli.run(scan) == 1
    assert "provenance.pinned_revision: org/adapter@main names no full commit" in capsys.readouterr().out
    logs = [json.loads(path.read_text())["runs"][0] for path in Path("out").iterdir()]
    [breach] = [
        note
        for run in logs
        for note in run["invocations"][0]["toolExecutionNotifications"]
        if "pinned_revision" in note["message"]["text"]
    ]
    place = breach["locations"][0]["physicalLocation"]
    assert place == {"artifactLocation": {"uri": "models.yaml"}, "region": {"startLine": 4}}
    assert cli.run(["pin", "models.yaml"]) == 0
    assert cli.run(scan) == 0
