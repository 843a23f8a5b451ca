"""`ftsec-audit watch` as a long-running process: uploads become reports once, whatever ends it in between."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from builders.adapters import write_adapter
from builders.served import SCAN, until
from hub_server import Fault, HubServer

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with HubServer() as server:
        yield server


def upload(hub: HubServer, folder: Path, number: int) -> str:
    adapter = write_adapter(folder / f"a{number}", seed=number)
    added = hub.add(f"org/a{number}", {path.name: path for path in adapter.iterdir()})
    added.last_modified = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
    return f"hf://org/a{number}@{added.refs['main'].sha}"


class Watching:
    """The command as its users start it, and what it has said so far."""

    def __init__(self, folder: Path, hub: HubServer) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "FTSEC_"))}
        settings = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(folder / "hf")}
        settings |= {"FTSEC_AUDIT_CACHE": str(folder / "cache"), "PYTHONUNBUFFERED": "1"}
        settings |= {"PYTHONPATH": os.pathsep.join(map(os.path.abspath, filter(None, sys.path)))}
        command = [sys.executable, "-m", "ftsec_audit", "watch", "--author", "org", "--every", "1s"]
        self._log = folder / "said"
        with self._log.open("w") as said:
            self._process = subprocess.Popen(
                [*command, "--store", str(folder / "store"), "--", *SCAN],
                env=kept | settings,
                stderr=said,
                cwd=folder,
            )

    def said(self, pattern: str) -> list[str]:
        assert self._process.poll() is None or self._process.returncode == 0, self._log.read_text()
        return re.findall(pattern, self._log.read_text())

    def end(self) -> int:
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(60)


def documents(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (folder / "store").glob("*/*.json")}


def test_uploads_are_scanned_once_over_a_stop_and_a_restart(tmp_path: Path, hub: HubServer) -> None:
    watching = Watching(tmp_path, hub)
    until(lambda: watching.said(r"0 new"))
    first = upload(hub, tmp_path, 0)
    until(lambda: watching.said(rf"pass\s+{re.escape(first)}"))
    kept = documents(tmp_path)
    assert len(kept) == 1

    hub.faults.append(Fault(path="/org/a1/*", delay=20))
    second = upload(hub, tmp_path, 1)
    until(lambda: hub.log.of("/org/a1/"))  # in the middle of its scan
    assert watching.end() == 0
    assert watching.said("what was not finished is scanned the next time")
    assert documents(tmp_path) == kept
    hub.faults.clear()
    hub.log.clear()

    third = upload(hub, tmp_path, 2)  # while nobody watches
    again = Watching(tmp_path, hub)
    until(lambda: len(again.said(r"pass\s+hf://")) == 2)
    polls = len(hub.log.of("/api/models?"))
    until(lambda: len(hub.log.of("/api/models?")) > polls + 1)
    assert again.end() == 0
    assert sorted(again.said(r"pass\s+(hf://\S+)")) == sorted([second, third])
    assert not [request for request in hub.log if request.path.startswith("/org/a0/")]
    after = documents(tmp_path)
    assert len(after) == 3
    assert kept.items() <= after.items()
