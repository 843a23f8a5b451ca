"""A real server, a real Hub on this machine, real scans, and a kill in the middle."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from builders.adapters import write_adapter
from builders.deliveries import of_hub
from builders.services import HUB_SECRET, TOKEN
from hub_server import Fault, HubServer

pytestmark = pytest.mark.timeout(600)
SCAN = ("--profile", "quick", "--select", "FTA4", "-j", "1")


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubServer]:
    with HubServer() as server:
        for number in range(3):
            adapter = write_adapter(tmp_path / f"a{number}", seed=number)
            server.add(f"org/a{number}", {path.name: path for path in adapter.iterdir()})
        yield server


class Served:
    """`ftsec-audit serve` as its users start it."""

    def __init__(self, folder: Path, hub: HubServer, *arguments: str) -> None:
        settings = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(folder / "hf")}
        settings |= {"FTSEC_AUDIT_CACHE": str(folder / "cache"), "FTSEC_AUDIT_TOKEN": TOKEN}
        settings |= {"FTSEC_AUDIT_HUB_SECRET": HUB_SECRET, "PYTHONUNBUFFERED": "1"}
        settings |= {"PYTHONPATH": os.pathsep.join(map(os.path.abspath, filter(None, sys.path)))}
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "FTSEC_"))}
        command = [
            sys.executable,
            "-m",
            "ftsec_audit",
            "serve",
            "--port",
            "0",
            "--store",
            str(folder / "store"),
        ]
        self._process = subprocess.Popen(
            [*command, *arguments, "--", *SCAN],
            env=kept | settings,
            stderr=subprocess.PIPE,
            text=True,
            cwd=folder,
        )
        assert self._process.stderr is not None
        for line in self._process.stderr:
            if match := re.search(r"http://127\.0\.0\.1:\d+", line):
                self.address = match[0]
                return
        raise AssertionError("the server did not start")

    def get(self, path: str) -> Any:
        return self._ask(path, {"Authorization": f"Bearer {TOKEN}"}, None)

    def deliver(self, payload: dict[str, Any]) -> Any:
        return self._ask("/webhooks/hub", {"X-Webhook-Secret": HUB_SECRET}, json.dumps(payload).encode())

    def end(self, number: signal.Signals) -> int:
        self._process.send_signal(number)
        return self._process.wait(60)

    def _ask(self, path: str, headers: dict[str, str], data: bytes | None) -> Any:
        request = urllib.request.Request(self.address + path, data=data, headers=headers)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read())


def until(condition: Callable[[], Any], seconds: float = 240) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.1)
    return found


def test_deliveries_become_reports_although_the_server_is_killed_in_between(
    tmp_path: Path, hub: HubServer
) -> None:
    """The first scan is held up by a slow Hub, so that the kill comes in the middle of it."""
    commits = {name: repository.refs["main"].sha for name, repository in hub.repositories.items()}
    slow = Fault(path="*/org/a1/*", delay=3600)
    hub.faults.append(slow)
    first = Served(tmp_path, hub)
    for name in ("org/a0", "org/a1"):
        assert first.deliver(of_hub(name, commits[name])) == {"queued": [f"hf://{name}@{commits[name]}"]}
    with pytest.raises(urllib.error.HTTPError, match="401"):
        first._ask("/api/reports", {}, None)
    until(lambda: any("org/a1" in request.path for request in hub.log))
    first.end(signal.SIGKILL)
    hub.faults.clear()
    hub.log.clear()

    second = Served(tmp_path, hub)
    assert second.deliver(of_hub("org/a2", commits["org/a2"]))["queued"]
    assert second.deliver(of_hub("org/a0", commits["org/a0"])) == {"queued": []}  # known, finished or not
    found = until(lambda: (r := second.get("/api/reports"))["total"] == 3 and r)
    assert {row["repository"] for row in found["reports"]} == set(commits)
    until(lambda: second.get("/api/queue")["counts"]["done"] == 3)
    assert len(list((tmp_path / "store").glob("*/*.json"))) == 3
    assert second.end(signal.SIGTERM) in (0, -signal.SIGTERM)
