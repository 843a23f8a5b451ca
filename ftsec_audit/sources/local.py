"""Local files and directories as artifacts: every file is listed, nothing outside is read.

Symbolic links are recorded, and followed only while they stay inside the directory. The one exception is
the layout that `huggingface_hub` gives its own cache, where each file of `snapshots/<commit>/` is a link
into `blobs/`: such a link is how the client stores a regular file, and is read as one.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from ftsec_audit.artifact import Artifact
from ftsec_audit.errors import SourceError
from ftsec_audit.files import ArtifactFile, ByteReader, LocalBytes

_BLOB_LINK = re.compile(r"^(?:\.\./)+blobs/(?:[0-9a-f]{40}|[0-9a-f]{64})$")
_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
}


@dataclass(frozen=True, kw_only=True)
class LocalBounds:
    """How much of a directory is listed before the reference is refused."""

    files: int = 20_000
    depth: int = 32


@dataclass(frozen=True)
class LocalOpener:
    """Opens one known path, by whatever name the artifact calls it."""

    path: Path

    def __call__(self, path: str) -> ByteReader:  # noqa: ARG002
        return LocalBytes(self.path)


@dataclass(frozen=True)
class Refusal:
    """Stands for something that is never opened, and says why."""

    reason: str

    def __call__(self, path: str) -> ByteReader:
        raise SourceError(self.reason, where=path)


def resolve_local(path: Path, reference: str, *, bounds: LocalBounds | None = None) -> Artifact:
    """The artifact at `path`, an existing file or directory; raises SourceError."""
    real = path.resolve()
    try:
        mode = real.stat().st_mode
    except OSError as error:
        raise SourceError(error.strerror or "cannot be read", where=reference) from error
    if stat.S_ISDIR(mode):
        return _directory(real, reference, bounds or LocalBounds())
    if not stat.S_ISREG(mode):
        raise SourceError(f"{_kind(mode)}, neither a file nor a directory", where=reference)
    file = ArtifactFile(real.name, real.stat().st_size, LocalOpener(real))
    return Artifact.of(reference, str(real), (file,))


def _directory(root: Path, reference: str, bounds: LocalBounds) -> Artifact:
    if not os.access(root, os.R_OK | os.X_OK):
        raise SourceError("permission denied", where=reference)
    listing = _Listing(root, bounds)
    files = tuple(sorted(listing.files(), key=lambda file: file.path))
    artifact = Artifact.of(reference, str(root), files, local_dir=root)
    return replace(artifact, problems=(*artifact.problems, *listing.problems))


class _Listing:
    """One walk through a directory, without following links; `problems` fills up on the way."""

    def __init__(self, root: Path, bounds: LocalBounds) -> None:
        self._root = root
        self._bounds = bounds
        self._shared = _blob_stores(root)
        self.problems: list[str] = []
        self._closed: list[ArtifactFile] = []
        """Folders that could not be listed, as files that refuse to be opened: never passed over."""

    def files(self) -> Iterator[ArtifactFile]:
        count = 0
        for folder, names, leaves in os.walk(self._root, onerror=self._unreadable):
            here = Path(folder)
            if len(here.relative_to(self._root).parts) > self._bounds.depth:
                raise SourceError(f"folders nest deeper than {self._bounds.depth}", where=str(self._root))
            links = [name for name in names if (here / name).is_symlink()]
            for name in (*links, *leaves):
                count += 1
                if count > self._bounds.files:
                    raise SourceError(
                        f"more than {self._bounds.files:,} files",
                        where=str(self._root),
                        hint="name the model's own folder",
                    )
                yield self._file(here / name)
        yield from self._closed

    def _file(self, path: Path) -> ArtifactFile:
        name = path.relative_to(self._root).as_posix()
        try:
            state = path.lstat()
        except OSError as error:
            return self._refused(name, error.strerror or "cannot be read")
        if stat.S_ISLNK(state.st_mode):
            return self._link(path, name)
        if not stat.S_ISREG(state.st_mode):
            return self._refused(name, f"{_kind(state.st_mode)}, not a regular file")
        return ArtifactFile(name, state.st_size, LocalOpener(path))

    def _link(self, path: Path, name: str) -> ArtifactFile:
        target = str(path.readlink())
        try:
            real = path.resolve(strict=True)
            state = real.stat()
        except (OSError, RuntimeError):  # RuntimeError: a loop of links, before Python 3.13
            return self._refused(name, f"a symbolic link to {target!r}, which is not there", target)
        if not stat.S_ISREG(state.st_mode):
            return self._refused(name, f"a symbolic link to {target!r}, {_kind(state.st_mode)}", target)
        if real.is_relative_to(self._root):
            return ArtifactFile(name, state.st_size, LocalOpener(real), link_target=target)
        if _BLOB_LINK.match(target) and any(real.is_relative_to(store) for store in self._shared):
            return ArtifactFile(name, state.st_size, LocalOpener(real))
        return self._refused(name, f"a symbolic link out of the directory, to {target!r}", target)

    def _refused(self, name: str, reason: str, target: str | None = None) -> ArtifactFile:
        self.problems.append(f"{name}: {reason}; not opened")
        return ArtifactFile(name, 0, Refusal(f"{reason}; not opened"), link_target=target)

    def _unreadable(self, error: OSError) -> None:
        folder = Path(str(error.filename)).relative_to(self._root).as_posix()
        self._closed.append(self._refused(f"{folder}/", f"{error.strerror}, its files are not listed"))


def _blob_stores(root: Path) -> tuple[Path, ...]:
    """Where links of the Hub client's cache may lead from `root`; empty outside such a cache.

    The layout is `<cache>/models--org--name/snapshots/<commit>/…`, with the bytes in that repository's
    `blobs/` or, shared between repositories, in `<cache>/blobs/`.
    """
    for folder in (root, *root.parents):
        if folder.parent.name == "snapshots" and folder.parent.parent.name.startswith("models--"):
            repository = folder.parent.parent
            return repository / "blobs", repository.parent / "blobs"
    return ()


def _kind(mode: int) -> str:
    return "a directory" if stat.S_ISDIR(mode) else _KINDS.get(stat.S_IFMT(mode), "a special file")
