"""A Hub on this machine with adapters of two bases, and caches of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from builders.adapters import write_adapter, write_checkpoint
from hub_server import HubServer


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """`org/a0` … `org/a3` of `org/base-0` and `org/base-1` in turn, and `mirror/a0`, the same as `org/a0`."""
    for name in (
        "HF_TOKEN",
        "HF_HUB_OFFLINE",
        "TRANSFORMERS_OFFLINE",
        "HF_HUB_CACHE",
        "HUGGINGFACE_HUB_CACHE",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("FTSEC_AUDIT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    with HubServer() as server:
        for number in range(2):
            base = write_checkpoint(tmp_path / f"base-{number}", seed=number)
            server.add(f"org/base-{number}", {path.name: path for path in base.iterdir()})
        for number in range(4):
            named = f"org/base-{number % 2}"
            adapter = write_adapter(tmp_path / f"a{number}", seed=number, base_model_name_or_path=named)
            added = server.add(f"org/a{number}", {path.name: path for path in adapter.iterdir()})
            added.tags += ["peft", f"base_model:{named}"]
            added.last_modified = f"2026-02-0{number + 1}T00:00:00.000Z"
        server.add("mirror/a0", {path.name: path for path in (tmp_path / "a0").iterdir()})
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
        yield server
