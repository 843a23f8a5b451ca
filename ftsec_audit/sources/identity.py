"""Names for the bytes of an artifact, from what is known before any is fetched.

On the Hub every file is listed with the SHA-256 of its content, or with the hash git gives it, the one
that commits themselves are named by. Two repositories with the same files have the same identity.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ftsec_audit.artifact import Artifact
from ftsec_audit.errors import SourceError
from ftsec_audit.files import ArtifactFile
from ftsec_audit.sources import resolve
from ftsec_audit.sources.connection import Connection
from ftsec_audit.sources.hub import HubOpener, list_hub
from ftsec_audit.sources.references import HubReference, S3Reference, parse


def pinned(artifact: Artifact) -> str:
    """A reference that means these bytes; for a folder of this machine its absolute path."""
    resolved = artifact.resolved
    names_all = Path(resolved).is_absolute() or resolved.startswith(("models:/", "s3://"))
    return resolved if names_all else f"hf://{resolved}"


def content_identity(artifact: Artifact) -> str:
    """Equal only for equal names and contents of all files, or for the same pinned reference.

    A local folder of up to 1 GiB is hashed. A larger one is known by the path, size and times of its
    files, of which the time of the last change cannot be set by who wrote them.
    """
    if listed := _listed_identity(_blobs(artifact.files)):
        return listed
    root = Path(artifact.resolved)
    if not root.is_absolute():
        return artifact.resolved
    return artifact.digest or f"stat {_sha256(_states(root, artifact))}"


@dataclass(frozen=True, kw_only=True)
class Glance:
    """What a batch has to know of an artifact before it is scanned."""

    pinned: str
    identity: str
    size: int
    answer: str = ""
    """As in `hub.Listed`."""


def glance(
    reference: str, *, offline: bool = False, connect: Callable[[], Connection] | None = None
) -> Glance:
    """Of a reference to the Hub or a bucket by its listing alone, without opening a file.

    `connect` hands out a connection that several glances share. Raises SourceError.
    """
    parsed = parse(reference)
    if isinstance(parsed, HubReference):
        connection = connect() if connect else Connection.from_environment(offline=offline)
        found = list_hub(connection, parsed)
        if found and (identity := _listed_identity((f.path, f.size, f.blob) for f in found.files)):
            size = sum(file.size for file in found.files)
            return Glance(pinned=f"hf://{found.resolved}", identity=identity, size=size, answer=found.answer)
    if isinstance(parsed, S3Reference):
        from ftsec_audit.sources.s3 import list_s3

        stored = list_s3(parsed, reference, offline=offline)
        name, size = str(stored.reference), sum(listed.size for listed in stored.objects.values())
        return Glance(pinned=name, identity=name, size=size)
    return at_length(resolve(reference, offline=offline))


def at_length(artifact: Artifact) -> Glance:
    """The same of an artifact that was opened for other reasons; raises SourceError."""
    if not artifact.files:
        raise SourceError("holds no files", where=artifact.reference)
    size = sum(file.size for file in artifact.files)
    return Glance(pinned=pinned(artifact), identity=content_identity(artifact), size=size)


def _blobs(files: Sequence[ArtifactFile]) -> list[tuple[str, int, str]]:
    """Path, size and digest as the Hub lists them; nothing for files that are not of one commit there."""
    openers = {id(file.source): file.source for file in files}
    if len(openers) != 1 or not isinstance(opener := next(iter(openers.values())), HubOpener):
        return []
    listed = {file.path: file for file in opener.listing.files}
    return [(file.path, file.size, listed[opener.folder + file.path].blob) for file in files]


def _listed_identity(blobs: Iterable[tuple[str, int, str]]) -> str:
    """By the digests that the Hub lists; empty where it does not list them all."""
    known = sorted(blobs)
    return f"git {_sha256(known)}" if known and all(blob for _, _, blob in known) else ""


def _states(root: Path, artifact: Artifact) -> list[tuple[str, int, int, int]]:
    states = [(str(root), 0, 0, 0)]
    for file in artifact.files:
        try:
            state = (root / file.path if root.is_dir() else root).lstat()
        except OSError as error:
            raise SourceError(error.strerror or "cannot be read", where=file.path) from error
        states.append((file.path, state.st_size, state.st_mtime_ns, state.st_ctime_ns))
    return states


def _sha256(content: object) -> str:
    return hashlib.sha256(repr(content).encode("utf-8", "surrogateescape")).hexdigest()
