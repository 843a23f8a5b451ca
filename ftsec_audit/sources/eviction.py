"""A limit on what one process leaves in the Hub client's cache: what was used least recently goes first.

Only what this process has fetched itself is ever removed. What was there before belongs to somebody else.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ftsec_audit.sources.connection import Connection
from ftsec_audit.sources.references import HubReference, parse


class CacheBudget:
    """`using` wraps each use of some references; at its end the cache is cut down to `max_bytes`."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._fetched: OrderedDict[Path, set[Path]] = OrderedDict()
        """Repository → contents that this process brought, the repository used last at the end."""

    @contextmanager
    def using(self, references: Sequence[str]) -> Iterator[None]:
        """The last reference is the one that is most likely to be used again."""
        storages = [storage for reference in references if (storage := _storage(reference))]
        before = {storage: _contents(storage) for storage in storages}
        try:
            yield
        finally:
            for storage in storages:
                self._fetched.setdefault(storage, set()).update(_contents(storage) - before[storage])
                self._fetched.move_to_end(storage)
            self._evict()

    def _evict(self) -> None:
        sizes = {storage: sum(map(_size, contents)) for storage, contents in self._fetched.items()}
        excess = sum(sizes.values()) - self._max_bytes
        for storage in list(self._fetched):
            if excess <= 0:
                return
            excess -= sizes[storage]
            for path in self._fetched.pop(storage):
                path.unlink(missing_ok=True)
            _remove_dangling(storage)


def _storage(reference: str) -> Path | None:
    parsed = parse(reference)
    if not isinstance(parsed, HubReference):
        return None
    return Connection.from_environment().storage(parsed.repository)


def _contents(storage: Path) -> set[Path]:
    return set((storage / "blobs").glob("*"))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # another process has removed it
        return 0


def _remove_dangling(storage: Path) -> None:
    """The names under which commits held what is gone now."""
    for path in (storage / "snapshots").rglob("*"):
        if path.is_symlink() and not path.exists():
            path.unlink(missing_ok=True)
