"""Readers over a part of a file, and over what a decompressor gives, without holding it in memory."""

from __future__ import annotations

import tempfile

from ftsec_audit.files import ByteReader


class Slice:
    """`length` bytes of another reader from `start`, clipped to what is there."""

    def __init__(self, reader: ByteReader, start: int, length: int) -> None:
        self._reader = reader
        self._start = max(0, min(start, reader.size))
        self._size = max(0, min(length, reader.size - self._start))

    @property
    def size(self) -> int:
        return self._size

    def read_at(self, offset: int, length: int) -> bytes:
        length = max(0, min(length, self._size - offset))
        return self._reader.read_at(self._start + offset, length)

    def readinto_at(self, offset: int, buffer: memoryview) -> int:
        chunk = self.read_at(offset, len(buffer))
        buffer[: len(chunk)] = chunk
        return len(chunk)


class Spool:
    """Bytes written once from front to end, then read at random; on disk when they are many."""

    def __init__(self, in_memory: int = 16 << 20) -> None:
        self._file = tempfile.SpooledTemporaryFile(max_size=in_memory)  # noqa: SIM115 - closed when collected
        self._size = 0

    @property
    def size(self) -> int:
        return self._size

    def write(self, data: bytes) -> None:
        self._file.write(data)
        self._size += len(data)

    def read_at(self, offset: int, length: int) -> bytes:
        self._file.seek(offset)
        return self._file.read(max(0, min(length, self._size - offset)))

    def readinto_at(self, offset: int, buffer: memoryview) -> int:
        chunk = self.read_at(offset, len(buffer))
        buffer[: len(chunk)] = chunk
        return len(chunk)
