"""A Hub on this machine with adapters of two bases, and caches of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from builders.hubs import adapters_on_hub
from hub_server import HubServer


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """`org/a0` … `org/a3` of `org/base-0` and `org/base-1` in turn, and `mirror/a0`, the same as `org/a0`."""
    with adapters_on_hub(tmp_path, monkeypatch) as server:
        yield server
