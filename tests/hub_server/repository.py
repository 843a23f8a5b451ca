"""Repositories with commits, as the server keeps them: immutable contents addressed by their digest."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

LFS_FROM = 1 << 16
"""Bytes from which a file is stored outside git, and served by the storage host."""
LFS_SUFFIXES = (".safetensors", ".bin", ".pt", ".gguf", ".onnx")


@dataclass(frozen=True, eq=False)
class Content:
    """The bytes of one file: held in memory, or left on disk and read as they are sent."""

    data: bytes | Path

    @cached_property
    def size(self) -> int:
        return len(self.data) if isinstance(self.data, bytes) else self.data.stat().st_size

    @cached_property
    def sha256(self) -> str:
        if isinstance(self.data, bytes):
            return hashlib.sha256(self.data).hexdigest()
        with self.data.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    @cached_property
    def git_sha1(self) -> str:
        """What git calls this blob; for a file stored outside git, its pointer."""
        data = self.data.read_bytes() if isinstance(self.data, Path) else self.data
        return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()

    def read(self, start: int, stop: int) -> bytes:
        if isinstance(self.data, bytes):
            return self.data[start:stop]
        with self.data.open("rb") as file:
            file.seek(start)
            return file.read(stop - start)


@dataclass(frozen=True, eq=False)
class Entry:
    """A file at a commit."""

    path: str
    content: Content

    @cached_property
    def lfs(self) -> bool:
        return self.path.endswith(LFS_SUFFIXES) or self.content.size >= LFS_FROM

    @cached_property
    def etag(self) -> str:
        return self.content.sha256 if self.lfs else self.content.git_sha1

    @cached_property
    def oid(self) -> str:
        """The git object id: of the pointer file where the bytes are stored outside git."""
        if not self.lfs:
            return self.content.git_sha1
        return hashlib.sha1(f"pointer {self.content.sha256} {self.content.size}".encode()).hexdigest()


@dataclass(frozen=True, eq=False)
class Commit:
    sha: str
    entries: Mapping[str, Entry]


@dataclass
class Repository:
    """A model repository; `commit` adds a state of its files and moves a branch to it."""

    id: str
    private: bool = False
    gated: bool = False
    refs: dict[str, Commit] = field(default_factory=dict)
    commits: dict[str, Commit] = field(default_factory=dict)
    tags: list[str] = field(default_factory=list)
    last_modified: str = "2026-01-01T00:00:00.000Z"

    def commit(self, files: Mapping[str, bytes | Path], *, branch: str = "main", tag: str = "") -> str:
        """Replace the content of `branch` by `files`; returns the commit id, the same for the same files."""
        entries = {path: Entry(path, Content(data)) for path, data in sorted(files.items())}
        names = "\n".join(f"{path}\0{entry.etag}" for path, entry in entries.items())
        sha = hashlib.sha1(f"{self.id}\0{branch}\0{len(self.commits)}\0{names}".encode()).hexdigest()
        commit = Commit(sha, entries)
        self.commits[sha] = commit
        self.refs[branch] = commit
        if tag:
            self.refs[tag] = commit
        return sha

    def at(self, revision: str) -> Commit | None:
        """The commit that a branch, a tag, a commit id or the start of one names."""
        if revision in self.refs:
            return self.refs[revision]
        if len(revision) < 7:
            return None
        return next((c for sha, c in self.commits.items() if sha.startswith(revision)), None)
