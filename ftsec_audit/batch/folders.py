"""Where documents lie: a local folder, or any place that fsspec reaches. Files appear whole or not at all."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from ftsec_audit import atomic_file
from ftsec_audit.errors import UsageError

_STALE_AFTER = 3600.0  # seconds; no document takes as long to write


class Folder(Protocol):
    """Files by relative name. `write` raises OSError and leaves nothing behind."""

    def names(self) -> Iterator[str]: ...
    def exists(self, name: str) -> bool: ...
    def read(self, name: str) -> bytes:
        """Raises FileNotFoundError, or another OSError."""
        ...

    def write(self, name: str, data: bytes) -> None: ...
    def remove(self, name: str) -> None: ...


def open_folder(url: str) -> Folder:
    """A path, or an fsspec URL such as `s3://bucket/scans`; raises UsageError."""
    if "://" not in url:
        return LocalFolder(Path(url))
    try:
        import fsspec

        filesystem, path = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise UsageError(str(error), where=url, hint="install the fsspec package for it") from error
    return RemoteFolder(filesystem, path)


def anywhere(url: str) -> str:
    """The same place for processes with another working directory."""
    return url if "://" in url else str(Path(url).absolute())


class LocalFolder:
    """A directory; documents are written beside their place and renamed into it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        self._sweep()

    def names(self) -> Iterator[str]:
        for path in self.path.glob("*/*.json"):
            if not path.name.startswith("."):
                yield path.relative_to(self.path).as_posix()

    def exists(self, name: str) -> bool:
        return (self.path / name).exists()

    def read(self, name: str) -> bytes:
        return (self.path / name).read_bytes()

    def write(self, name: str, data: bytes) -> None:
        path = self.path / name
        path.parent.mkdir(exist_ok=True)
        atomic_file.write(path, data)

    def remove(self, name: str) -> None:
        (self.path / name).unlink(missing_ok=True)

    def _sweep(self) -> None:
        """Remove what a process that was killed while it wrote has left."""
        for path in self.path.glob("*/.*.part"):
            try:
                if time.time() - path.stat().st_mtime > _STALE_AFTER:
                    path.unlink()
            except OSError:  # another batch on this store was faster
                continue


class RemoteFolder:
    """A folder of an fsspec file system whose single puts are atomic, as those of object stores are."""

    def __init__(self, filesystem: Any, path: str) -> None:
        self._files, self._root = filesystem, path.rstrip("/")

    def names(self) -> Iterator[str]:
        if self._files.exists(self._root):
            for path in self._files.find(self._root):
                if path.endswith(".json"):
                    yield path.removeprefix(self._root).lstrip("/")

    def exists(self, name: str) -> bool:
        return bool(self._files.exists(f"{self._root}/{name}"))

    def read(self, name: str) -> bytes:
        return bytes(self._files.cat_file(f"{self._root}/{name}"))

    def write(self, name: str, data: bytes) -> None:
        path = f"{self._root}/{name}"
        self._files.makedirs(path.rpartition("/")[0], exist_ok=True)
        self._files.pipe_file(path, data)

    def remove(self, name: str) -> None:
        if self.exists(name):
            self._files.rm_file(f"{self._root}/{name}")
