"""What is uploaded is found once, whatever happens between two polls."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hub_server import Fault, HubServer

from ftsec_audit import cli
from ftsec_audit.errors import SourceError
from ftsec_audit.service.queue import Queue
from ftsec_audit.service.watch import Watch
from ftsec_audit.sources.connection import Connection
from ftsec_audit.sources.search import HubQuery


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setattr("ftsec_audit.sources.transfer.sleep", lambda seconds: None)
    with HubServer() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
        yield server


def upload(hub: HubServer, name: str, at: str, content: bytes = b"{}") -> str:
    repository = hub.repositories.get(name) or hub.add(name, {"config.json": b""})
    repository.last_modified = f"{at}:00.000Z"
    return f"hf://{name}@{repository.commit({'config.json': content})}"


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def watch(folder: Path, **query: object) -> Watch:
    queue = Queue(f"sqlite:///{folder / 'queue.sqlite'}")
    return Watch(queue, HubQuery(**{"author": "org", **query}), Connection.from_environment)  # type: ignore[arg-type]


def test_each_upload_is_entered_once_also_over_a_pause(hub: HubServer, tmp_path: Path) -> None:
    upload(hub, "org/old", "2026-03-01T08:00")
    watching = watch(tmp_path)
    assert watching.poll(now=moment("2026-03-01T12:00")) == []
    new = upload(hub, "org/new", "2026-03-01T12:05")
    upload(hub, "other/new", "2026-03-01T12:05")
    assert watching.poll(now=moment("2026-03-01T12:10")) == [new]
    assert watching.poll(now=moment("2026-03-01T12:20")) == []
    again = upload(hub, "org/new", "2026-03-02T00:00", b"{} ")
    late = upload(hub, "org/late", "2026-03-01T12:15")  # listed only now
    assert set(watch(tmp_path).poll(now=moment("2026-03-03T12:00"))) == {again, late}


def test_the_first_poll_may_reach_back(hub: HubServer, tmp_path: Path) -> None:
    old = upload(hub, "org/old", "2026-03-01T08:00")
    assert watch(tmp_path, since=moment("2026-02-01T00:00")).poll(now=moment("2026-03-05T00:00")) == [old]


def test_a_poll_that_fails_is_made_up_for(hub: HubServer, tmp_path: Path) -> None:
    watching = watch(tmp_path)
    watching.poll(now=moment("2026-03-01T12:00"))
    new = upload(hub, "org/new", "2026-03-01T13:00")
    hub.faults.append(Fault(path="*api/models*", status=403))
    with pytest.raises(SourceError):
        watching.poll(now=moment("2026-03-01T14:00"))
    hub.faults.clear()
    assert watching.poll(now=moment("2026-03-02T14:00")) == [new]


def test_two_queries_do_not_disturb_each_other(hub: HubServer, tmp_path: Path) -> None:
    tagged = watch(tmp_path, filters=("peft",))
    tagged.poll(now=moment("2026-03-01T12:00"))
    watch(tmp_path).poll(now=moment("2026-03-02T00:00"))
    new = upload(hub, "org/new", "2026-03-01T13:00")
    hub.repositories["org/new"].tags.append("peft")
    assert tagged.poll(now=moment("2026-03-03T00:00")) == [new]


def test_watching_nothing_in_particular_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["watch", "--store", str(tmp_path)]) == 2
    assert "nothing to watch" in capsys.readouterr().err
