"""A Hub with a few adapters, in this process or in one of its own that can be killed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from builders.adapters import write_adapter, write_checkpoint
from hub_server import HubServer

TESTS = Path(__file__).parents[1]
_OWN = ("HF_TOKEN", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE")


def separate(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Caches and a working directory below `folder`; nothing of the user's."""
    for name in _OWN:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(folder / "hf"))
    monkeypatch.setenv("FTSEC_AUDIT_CACHE", str(folder / "cache"))
    (folder / "work").mkdir()
    monkeypatch.chdir(folder / "work")


@contextmanager
def adapters_on_hub(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """`org/a0` … `org/a3` of `org/base-0` and `org/base-1` in turn, and `mirror/a0`, the same as `org/a0`."""
    separate(folder, monkeypatch)
    with HubServer() as server:
        for number in range(2):
            base = write_checkpoint(folder / f"base-{number}", seed=number)
            server.add(f"org/base-{number}", {path.name: path for path in base.iterdir()})
        for number in range(4):
            named = f"org/base-{number % 2}"
            adapter = write_adapter(folder / f"a{number}", seed=number, base_model_name_or_path=named)
            added = server.add(f"org/a{number}", {path.name: path for path in adapter.iterdir()})
            added.tags += ["peft", f"base_model:{named}"]
            added.last_modified = f"2026-02-0{number + 1}T00:00:00.000Z"
        server.add("mirror/a0", {path.name: path for path in (folder / "a0").iterdir()})
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
        yield server


def with_tests(environment: dict[str, str] | None = None) -> dict[str, str]:
    """The environment in which a process of its own finds the program and the tests."""
    path = os.pathsep.join([str(TESTS), str(TESTS.parent), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path, **(environment or {})}


def hub_process(folder: Path, *, delay: float = 0.0) -> tuple[subprocess.Popen[str], str]:
    """A Hub of the `org/name` folders below `folder` in a process of its own, and its endpoint."""
    command = [sys.executable, "-m", "hub_server", str(folder), str(delay)]
    process = subprocess.Popen(command, env=with_tests(), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, process.stdout.readline().strip()
