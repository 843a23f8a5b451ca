"""Files of an artifact, read by offset: the one way bytes reach a parser, local or remote."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ftsec_audit.errors import SourceError

_BLOCK = 1 << 20


class ByteReader(Protocol):
    """Random access to a file that is never wholly in memory.

    Laws: `read_at` returns exactly `min(length, size - offset)` bytes (possibly zero) or raises
    `SourceError`; it never blocks on anything but I/O; equal arguments give equal bytes.
    """

    @property
    def size(self) -> int: ...

    def read_at(self, offset: int, length: int) -> bytes: ...

    def readinto_at(self, offset: int, buffer: memoryview) -> int:
        """Fill `buffer` from `offset`; returns how many bytes were written."""
        ...


class LocalBytes:
    """A regular local file, opened once and read with `pread`."""

    def __init__(self, path: Path) -> None:
        try:
            # O_NONBLOCK: a FIFO planted in a repository must not hang the scan.
            self._fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise SourceError(error.strerror or "cannot be opened", where=str(path)) from error
        self.path = path
        self._size = os.fstat(self._fd).st_size

    def __del__(self) -> None:
        if hasattr(self, "_fd"):
            os.close(self._fd)

    @property
    def size(self) -> int:
        return self._size

    def read_at(self, offset: int, length: int) -> bytes:
        length = max(0, min(length, self._size - offset))
        buffer = bytearray(length)
        if self.readinto_at(offset, memoryview(buffer)) != length:
            raise SourceError("the file became shorter while it was read", where=str(self.path))
        return bytes(buffer)

    def readinto_at(self, offset: int, buffer: memoryview) -> int:
        done, left = 0, buffer
        while left:
            try:
                count = os.preadv(self._fd, [left], offset + done)
            except OSError as error:
                raise SourceError(error.strerror or "read failed", where=str(self.path)) from error
            if count == 0:
                break
            done += count
            left = buffer[done:]
        return done


class MemoryBytes:
    """Bytes already in memory, e.g. a member unpacked from a container."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    @property
    def size(self) -> int:
        return len(self._data)

    def read_at(self, offset: int, length: int) -> bytes:
        return self._data[offset : offset + length]

    def readinto_at(self, offset: int, buffer: memoryview) -> int:
        chunk = self.read_at(offset, len(buffer))
        buffer[: len(chunk)] = chunk
        return len(chunk)


@dataclass(frozen=True)
class ArtifactFile:
    """One file of an artifact. `open()` costs nothing until something is read."""

    path: str
    """Relative, `/`-separated, exactly as the repository spells it: hostile."""
    size: int
    source: FileOpener
    digest: str = ""
    """`sha256:…` where the source knows it without reading (LFS pointers)."""
    link_target: str | None = None
    """Where a symbolic link points, or None for a regular file. Links are not followed outside."""

    @property
    def name(self) -> str:
        return self.path.rsplit("/", 1)[-1]

    @property
    def suffix(self) -> str:
        return "." + self.name.rsplit(".", 1)[-1].lower() if "." in self.name else ""

    def open(self) -> ByteReader:
        """Open for reading; raises SourceError."""
        return self.source(self.path)

    def read(self, limit: int) -> bytes:
        """The first `limit` bytes (all of it when the file is smaller)."""
        return self.open().read_at(0, min(self.size, limit))


class FileOpener(Protocol):
    """How a source turns the path of one of its files into bytes."""

    def __call__(self, path: str) -> ByteReader: ...


def blocks(reader: ByteReader, size: int = _BLOCK) -> Iterator[bytes]:
    """The file from start to end in blocks."""
    for offset in range(0, reader.size, size):
        yield reader.read_at(offset, size)


def sha256(reader: ByteReader) -> str:
    """`sha256:<hex>` over the whole file."""
    digest = hashlib.sha256()
    for block in blocks(reader):
        digest.update(block)
    return f"sha256:{digest.hexdigest()}"
