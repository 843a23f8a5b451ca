"""What a process fetched is removed again, least recently used first; what others fetched stays."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from builders.hubs import adapters_on_hub
from hub_server import HubServer

from ftsec_audit.sources import resolve
from ftsec_audit.sources.eviction import CacheBudget


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with adapters_on_hub(tmp_path, monkeypatch) as server:
        yield server


def read(reference: str) -> int:
    return sum(len(file.read(1 << 20)) for file in resolve(reference).files)


def kept() -> dict[str, int]:
    """Repository → bytes of it in the cache."""
    storages = Path("../hf/hub").resolve().glob("models--*")
    sizes = {s.name.rpartition("--")[2]: sum(f.stat().st_size for f in s.glob("blobs/*")) for s in storages}
    return {name: size for name, size in sizes.items() if size}


def test_the_least_recently_used_goes_and_the_base_in_use_stays(hub: HubServer) -> None:
    size = read("org/base-0") + read("mirror/a0")
    for repository in ("base-0", "a0"):
        assert repository in kept()
    budget = CacheBudget(size)  # room for less than four adapters
    for name in ("a0", "a1", "a2", "a3", "a1"):
        with budget.using([f"org/{name}", "org/base-1"]):
            assert read(f"org/{name}") and read("org/base-1")
        held = kept()
        assert {name, "base-1"} <= set(held)
        assert "base-0" in held  # it was there before
    assert len({"a0", "a1", "a2", "a3"} & set(kept())) < 4


def test_what_does_not_fit_at_all_is_removed_once_it_was_used(hub: HubServer) -> None:
    budget = CacheBudget(0)
    for _ in range(2):  # and can be fetched again
        with budget.using(["org/a1"]):
            assert read("org/a1") > 0
        assert not kept()
    links = [path for path in Path("../hf/hub").rglob("*") if path.is_symlink()]
    assert not links


def test_failures_and_local_folders_are_no_trouble(hub: HubServer, tmp_path: Path) -> None:
    budget = CacheBudget(0)
    with pytest.raises(RuntimeError), budget.using(["org/a1", str(tmp_path), "org/none"]):
        read("org/a1")
        raise RuntimeError
    assert not kept()
