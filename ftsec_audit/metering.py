"""A bound on the bytes that are read from a subject, enforced where files are opened."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace

from ftsec_audit.artifact import Artifact
from ftsec_audit.contracts import Subject
from ftsec_audit.errors import BudgetExceeded
from ftsec_audit.files import ArtifactFile, ByteReader, FileOpener


@dataclass
class Meter:
    """Counts down from `limit` bytes."""

    limit: int
    spent: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def spend(self, amount: int) -> None:
        """Raises BudgetExceeded instead of letting more than `limit` bytes be read."""
        with self._lock:
            if self.spent + amount > self.limit:
                raise BudgetExceeded(f"reading on would exceed the budget of {self.limit:,} bytes")
            self.spent += amount


@dataclass(frozen=True)
class _MeteredBytes:
    reader: ByteReader
    meter: Meter

    @property
    def size(self) -> int:
        return self.reader.size

    def read_at(self, offset: int, length: int) -> bytes:
        self.meter.spend(max(0, min(length, self.size - offset)))
        return self.reader.read_at(offset, length)

    def readinto_at(self, offset: int, buffer: memoryview) -> int:
        self.meter.spend(max(0, min(len(buffer), self.size - offset)))
        return self.reader.readinto_at(offset, buffer)


@dataclass(frozen=True)
class _MeteredOpener:
    opener: FileOpener
    meter: Meter

    def __call__(self, path: str) -> ByteReader:
        return _MeteredBytes(self.opener(path), self.meter)


def metered(subject: Subject, limit: int) -> Subject:
    """The same subject, of which (base and parent included) at most `limit` bytes can be read from now on."""
    meter = Meter(limit)
    base = _metered(subject.base, meter) if subject.base else None
    parent = _metered(subject.parent, meter) if subject.parent else None
    return replace(subject, artifact=_metered(subject.artifact, meter), base=base, parent=parent)


def _metered(artifact: Artifact, meter: Meter) -> Artifact:
    def wrap(file: ArtifactFile) -> ArtifactFile:
        return replace(file, source=_MeteredOpener(file.source, meter))

    wrapped = {file.path: wrap(file) for file in artifact.files}
    index = artifact.shard_index
    return replace(
        artifact,
        files=tuple(wrapped.values()),
        weight_files=tuple(wrapped[file.path] for file in artifact.weight_files),
        shard_index=wrapped[index.path] if index else None,
    )
