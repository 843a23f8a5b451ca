"""Artifact files from bytes, from paths, and safetensors files spelled out by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ftsec_audit.artifact import Artifact
from ftsec_audit.files import ArtifactFile, LocalBytes, MemoryBytes


def memory_file(data: bytes, name: str = "model.safetensors") -> ArtifactFile:
    """A file that exists only in memory."""
    return ArtifactFile(name, len(data), lambda path: MemoryBytes(data))


def disk_file(path: Path) -> ArtifactFile:
    """A file on disk, under its own name."""
    return ArtifactFile(path.name, path.stat().st_size, lambda _: LocalBytes(path))


def folder(path: Path) -> Artifact:
    """All files below `path`, recognised."""
    paths = sorted(each for each in path.rglob("*") if each.is_file())
    files = [
        ArtifactFile(
            each.relative_to(path).as_posix(), each.stat().st_size, lambda _, each=each: LocalBytes(each)
        )
        for each in paths
    ]
    return Artifact.of(str(path), str(path), files, local_dir=path)


def safetensors_bytes(header: object, data: bytes = b"", *, length: int | None = None) -> bytes:
    """A safetensors file; `header` is JSON text, bytes, or a value to be written as JSON."""
    if not isinstance(header, (str, bytes)):
        header = json.dumps(header)
    text = header.encode("utf-8", "surrogatepass") if isinstance(header, str) else header
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def tensor_json(dtype: str, shape: list[Any], begin: Any, end: Any) -> dict[str, Any]:
    """One entry of a safetensors header."""
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
