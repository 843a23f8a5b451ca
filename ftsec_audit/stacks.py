"""Stacks: several adapters on one base, in order and at scales, audited as the one update that they are.

What two adapters do together neither does alone (colluding adapters, arXiv 2603.12681), so the unit of an
audit is what is loaded together. A stack is named on the command line, or by a `stack.json` beside folders
of adapters:

    {"adapters": [{"path": "first", "scale": 1.0}, {"path": "second", "scale": 0.5}]}
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ftsec_audit.artifact import Artifact, ArtifactKind
from ftsec_audit.errors import FormatError, UsageError
from ftsec_audit.files import ByteReader, FileOpener
from ftsec_audit.formats import bounded_json

FILE_NAME = "stack.json"
_LIMITS = bounded_json.JsonLimits(size=1 << 20, values=10_000)
_MOST = 16


@dataclass(frozen=True)
class Further:
    """A further adapter of a stack, as it is written on the command line: `REF` or `REF=SCALE`."""

    reference: str
    scale: float = 1.0

    @classmethod
    def parse(cls, value: object) -> Further:
        """Raises UsageError for a scale that is no number."""
        if isinstance(value, Further):
            return value
        reference, equals, scale = str(value).rpartition("=")
        if not equals:
            return cls(str(value))
        try:
            return cls(reference, _finite(float(scale)))
        except ValueError as error:
            raise UsageError(f"{scale!r} is no scale", where=str(value), hint="write REF=0.5") from error

    def __str__(self) -> str:
        return self.reference if self.scale == 1.0 else f"{self.reference}={self.scale:g}"


@dataclass(frozen=True)
class Part:
    """An adapter and the factor at which it is used, beyond its own scale."""

    artifact: Artifact
    scale: float = 1.0


def described(artifact: Artifact) -> tuple[Part, ...]:
    """The stack that a folder of adapters describes; none where it does not.

    A folder with a model of its own is that model: a file beside it must not choose what is audited instead.
    Raises FormatError for a description that is none.
    """
    file = artifact.file(FILE_NAME)
    if file is None or file.link_target is not None:
        return ()
    if any("/" not in weights.path for weights in artifact.weight_files):
        return ()
    content = bounded_json.read(file, limits=_LIMITS).value
    entries = content.get("adapters") if isinstance(content, dict) else None
    if not isinstance(entries, list) or not 1 <= len(entries) <= _MOST:
        raise FormatError(f"lists no adapters, or more than {_MOST}", where=file.path)
    return tuple(_part(artifact, entry, file.path) for entry in entries)


def composed(parts: Sequence[Part]) -> Artifact:
    """The one adapter that computes what the parts do together; raises Unsupported and FormatError."""
    from ftsec_audit.weights.composition import compose

    for part in parts:
        if part.artifact.kind is not ArtifactKind.ADAPTER:
            raise UsageError(f"is no adapter but {part.artifact.describe()}", where=part.artifact.reference)
    return compose([(part.artifact, part.scale) for part in parts])


def _part(artifact: Artifact, entry: object, where: str) -> Part:
    fields = entry if isinstance(entry, dict) else {}
    path, scale = fields.get("path"), fields.get("scale", 1.0)
    if not isinstance(path, str) or not isinstance(scale, (int, float)) or isinstance(scale, bool):
        raise FormatError("an adapter has no path, or a scale that is no number", where=where)
    try:
        return Part(_folder(artifact, path.strip("/"), where), _finite(float(scale)))
    except (ValueError, OverflowError) as error:
        raise FormatError(f"an adapter has the scale {str(scale)[:40]}", where=where) from error


def _folder(artifact: Artifact, path: str, where: str) -> Artifact:
    """A subfolder as an artifact of its own, out of the files that are listed: no path leads elsewhere."""
    files = tuple(
        replace(file, path=file.path.removeprefix(f"{path}/"), source=_Below(path, file.source))
        for file in artifact.files
        if path and file.path.startswith(f"{path}/")
    )
    if not files:
        raise FormatError(f"names the folder {path[:80]!r}, which has no files", where=where)
    return Artifact.of(f"{artifact.reference}/{path}", f"{artifact.resolved}/{path}", files)


@dataclass(frozen=True)
class _Below:
    """Opens files by their path below a folder."""

    folder: str
    source: FileOpener

    def __call__(self, path: str) -> ByteReader:
        return self.source(f"{self.folder}/{path}")


def _finite(scale: float) -> float:
    if not math.isfinite(scale):
        raise ValueError("not finite")
    return scale
