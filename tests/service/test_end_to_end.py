"""A real server, a real Hub on this machine, real scans, and a kill in the middle."""

from __future__ import annotations

import signal
import urllib.error
from collections.abc import Iterator
from pathlib import Path

import pytest
from builders.adapters import write_adapter
from builders.deliveries import of_hub
from builders.served import Served, until
from hub_server import Fault, HubServer

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubServer]:
    with HubServer() as server:
        for number in range(3):
            adapter = write_adapter(tmp_path / f"a{number}", seed=number)
            server.add(f"org/a{number}", {path.name: path for path in adapter.iterdir()})
        yield server


def test_deliveries_become_reports_although_the_server_is_killed_in_between(
    tmp_path: Path, hub: HubServer
) -> None:
    """The first scan is held up by a slow Hub, so that the kill comes in the middle of it."""
    commits = {name: repository.refs["main"].sha for name, repository in hub.repositories.items()}
    slow = Fault(path="*/org/a1/*", delay=3600)
    hub.faults.append(slow)
    first = Served(tmp_path, {"HF_ENDPOINT": hub.endpoint})
    for name in ("org/a0", "org/a1"):
        assert first.deliver(of_hub(name, commits[name])) == {"queued": [f"hf://{name}@{commits[name]}"]}
    with pytest.raises(urllib.error.HTTPError, match="401"):
        first.ask("/api/reports", {}, None)
    until(lambda: any("org/a1" in request.path for request in hub.log))
    first.end(signal.SIGKILL)
    hub.faults.clear()
    hub.log.clear()

    second = Served(tmp_path, {"HF_ENDPOINT": hub.endpoint})
    assert second.deliver(of_hub("org/a2", commits["org/a2"]))["queued"]
    assert second.deliver(of_hub("org/a0", commits["org/a0"])) == {"queued": []}  # known, finished or not
    found = until(lambda: (r := second.get("/api/reports"))["total"] == 3 and r)
    assert {row["repository"] for row in found["reports"]} == set(commits)
    until(lambda: second.get("/api/queue")["counts"]["done"] == 3)
    assert len(list((tmp_path / "store").glob("*/*.json"))) == 3
    assert second.end(signal.SIGTERM) in (0, -signal.SIGTERM)
