"""Random access to remote files: small reads share blocks, sequential reads look ahead."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Protocol

from ftsec_audit.sources.resumed import Sink


class Ranges(Protocol):
    """Any part of one remote file."""

    @property
    def size(self) -> int: ...

    @property
    def where(self) -> str:
        """Its name, which no other file of the same store of blocks has."""
        ...

    def fetch(self, start: int, stop: int, sink: Sink) -> None:
        """Hand bytes `start` to `stop` (exclusive) to `sink`, in order, each once; raises SourceError."""
        ...


@dataclass(frozen=True, kw_only=True)
class Blocking:
    """How a remote file is cut into requests; all in bytes."""

    block: int = 256 << 10
    """Smallest unit asked for: a round trip costs about as much as this much data."""
    longest_request: int = 8 << 20
    """Upper bound of one request, reached by reading sequentially."""


class BlockStore:
    """The blocks kept in memory, of all files of a commit together; the least recently used go first."""

    def __init__(self, capacity: int = 16 << 20) -> None:
        self._capacity = capacity
        self._blocks: OrderedDict[tuple[str, int], bytes] = OrderedDict()
        self._lock = threading.Lock()
        self.held = 0
        """Bytes in memory."""

    def get(self, key: tuple[str, int]) -> bytes | None:
        with self._lock:
            if key in self._blocks:
                self._blocks.move_to_end(key)
            return self._blocks.get(key)

    def put(self, key: tuple[str, int], block: bytes) -> None:
        with self._lock:
            self.held += len(block) - len(self._blocks.pop(key, b""))
            self._blocks[key] = block
            while self.held > self._capacity:
                self.held -= len(self._blocks.popitem(last=False)[1])

    def __contains__(self, key: tuple[str, int]) -> bool:
        return key in self._blocks


class RemoteBytes:
    """A `ByteReader` over ranges of a remote file.

    A read costs one request per run of blocks that are not in memory. The blocks of a single read are
    fetched as asked for; only a read that continues the previous one fetches ahead, twice as far each time.
    """

    def __init__(self, ranges: Ranges, store: BlockStore, blocking: Blocking | None = None) -> None:
        self._ranges = ranges
        self._store = store
        self._blocking = blocking or Blocking()
        self._next = -1  # where a sequential read would start
        self._ahead = 0  # blocks to fetch beyond what is asked for
        self._lock = threading.Lock()

    @property
    def size(self) -> int:
        return self._ranges.size

    def read_at(self, offset: int, length: int) -> bytes:
        buffer = bytearray(max(0, min(length, self.size - offset)))
        self.readinto_at(offset, memoryview(buffer))
        return bytes(buffer)

    def readinto_at(self, offset: int, buffer: memoryview) -> int:
        length = max(0, min(len(buffer), self.size - offset))
        if length == 0:
            return 0
        with self._lock:
            self._expect(offset, length)
            done = 0
            while done < length:
                done += self._copy(offset + done, buffer[done:length])
        return length

    def _expect(self, offset: int, length: int) -> None:
        """Widen the look-ahead after a sequential read, forget it after any other."""
        most = self._blocking.longest_request // self._blocking.block
        self._ahead = min(max(1, 2 * self._ahead), most) if offset == self._next else 0
        self._next = offset + length

    def _copy(self, offset: int, buffer: memoryview) -> int:
        """Fill the start of `buffer` from the block that holds `offset`; returns how much that was."""
        number, within = divmod(offset, self._blocking.block)
        block = self._store.get(self._key(number))
        if block is None:
            block = self._fetch(number, (offset + len(buffer) - 1) // self._blocking.block)
        piece = memoryview(block)[within : within + len(buffer)]
        buffer[: len(piece)] = piece
        return len(piece)

    def _fetch(self, first: int, last: int) -> bytes:
        """Bring blocks `first` to `last` and the look-ahead into memory, up to one that is there.

        Returns the first block, which the store may already have dropped again.
        """
        size = self._blocking.block
        final = min(first + self._blocking.longest_request // size, (self.size - 1) // size + 1)
        stop = first + 1
        while stop < final and stop <= last + self._ahead and self._key(stop) not in self._store:
            stop += 1
        data = bytearray()
        self._ranges.fetch(first * size, min(stop * size, self.size), data.extend)
        blocks = [bytes(data[begin : begin + size]) for begin in range(0, len(data), size)]
        for number, block in reversed(list(enumerate(blocks, first))):
            self._store.put(self._key(number), block)
        return blocks[0]

    def _key(self, number: int) -> tuple[str, int]:
        return self._ranges.where, number
