"""Measurements kept between runs, so that judging the same bytes again reads none of them.

One JSON file per artifact content, base, detector with its hyper-parameters, and source code that measures.
Entries are written to a temporary name and renamed; whatever cannot be read back is treated as absent.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from ftsec_audit import atomic_file
from ftsec_audit.types import ModuleMeasurement
from ftsec_audit.version import VERSION

if TYPE_CHECKING:
    from ftsec_audit.artifact import Artifact

_MAX_BYTES = 512 << 20
_LOOKS = 32


def default_root() -> Path:
    """`FTSEC_AUDIT_CACHE`, else the platform's folder for caches."""
    if chosen := os.environ.get("FTSEC_AUDIT_CACHE"):
        return Path(chosen)
    if sys.platform == "darwin":
        parent = Path.home() / "Library" / "Caches"
    elif sys.platform == "win32":
        parent = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    else:
        parent = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return parent / "ftsec-audit"


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What a cache holds."""

    root: Path
    entries: int
    bytes: int


@dataclass(frozen=True)
class MeasurementCache:
    """A folder of measurements; every failure to read or write it only costs time."""

    root: Path
    max_bytes: int = _MAX_BYTES

    def get(self, *identity: str) -> tuple[ModuleMeasurement, ...] | None:
        path = self._path(identity)
        try:
            entry = json.loads(path.read_bytes())
            if entry["identity"] != [VERSION, *identity]:
                return None
            modules = tuple(_module(record) for record in entry["modules"])
            os.utime(path)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None
        return modules

    def put(self, modules: tuple[ModuleMeasurement, ...], *identity: str) -> None:
        records = [[m.name, m.role, m.layer, m.shape, m.values] for m in modules]
        text = json.dumps({"identity": [VERSION, *identity], "modules": records})
        if len(text) > self.max_bytes // 4:
            return
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            path = self._path(identity)
            atomic_file.write(path, text)
            if self._is_due(path, len(text)):
                self._evict()
        except OSError:
            return

    def contents(self) -> Contents:
        sizes = [path.stat().st_size for path in self._files()]
        return Contents(root=self.root, entries=len(sizes), bytes=sum(sizes))

    def clear(self) -> Contents:
        """Remove every entry; returns what was removed."""
        before = self.contents()
        for path in self._files():
            path.unlink(missing_ok=True)
        return before

    def _path(self, identity: tuple[str, ...]) -> Path:
        name = hashlib.sha256(json.dumps([VERSION, *identity]).encode()).hexdigest()[:40]
        return self.root / f"measured-{name}.json"

    def _is_due(self, path: Path, size: int) -> bool:
        """Whether to look at all entries now: by lot, on average once for each `_LOOKS`-th of the limit.

        Looking at every entry for every entry written takes the square of their number; what is written
        without a look goes beyond the limit by a few per cent at most, on average.
        """
        drawn = int(path.stem[-8:], 16) / 16**8  # the name is a digest: uniform, and the same every time
        return drawn < size * _LOOKS / self.max_bytes

    def _files(self) -> list[Path]:
        return sorted(self.root.glob("measured-*.json"))

    def _evict(self) -> None:
        """Drop the entries that were not used for longest until the rest fits."""
        stats = sorted(((path.stat(), path) for path in self._files()), key=lambda pair: pair[0].st_mtime)
        excess = sum(stat.st_size for stat, _ in stats) - self.max_bytes
        for stat, path in stats:
            if excess <= 0:
                return
            path.unlink(missing_ok=True)
            excess -= stat.st_size


def identity_of_subject(artifact: Artifact) -> str:
    """A name that no other content can have: repository and commit, or a digest of every byte; else empty.

    What a bucket says of its objects is no such name for whoever can write to it: an ETag is often an MD5.
    """
    if not Path(artifact.resolved).is_absolute() and not artifact.resolved.startswith("s3://"):
        return artifact.resolved
    return artifact.digest if artifact.digest.startswith("sha256:") else ""


def identity_of_base(base: Artifact) -> str:
    """Repository and commit, the state of a bucket, or what the file system says of each file.

    The base is chosen by the user, and far larger than the little of it that is read: it is not hashed
    whole for the sake of a cache.
    """
    root = Path(base.resolved)
    if not root.is_absolute():
        return base.resolved
    paths = [root / file.path for file in base.files] if root.is_dir() else [root]
    try:
        stats = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    except OSError:
        return ""
    return hashlib.sha256(repr(stats).encode("utf-8", "surrogateescape")).hexdigest()


@cache
def identity_of_code(folder: Path) -> str:
    """A digest of the Python files of a folder: an edited installation measures again by itself."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _module(record: list[object]) -> ModuleMeasurement:
    name, role, layer, shape, values = record
    if not (isinstance(name, str) and isinstance(role, str) and isinstance(shape, list)):
        raise ValueError("not a measurement")
    if not (layer is None or isinstance(layer, int)) or not isinstance(values, Mapping):
        raise ValueError("not a measurement")
    numbers = {str(key): _number_or_vector(value) for key, value in values.items()}
    return ModuleMeasurement(
        name=name, role=role, layer=layer, shape=tuple(int(size) for size in shape), values=numbers
    )


def _number_or_vector(value: object) -> float | list[float]:
    if isinstance(value, list):
        return [float(number) for number in value]
    if isinstance(value, (int, float)):
        return value
    raise ValueError("not a number")
