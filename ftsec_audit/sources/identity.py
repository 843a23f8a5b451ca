"""Names for the bytes of an artifact, from what is known before any is fetched.

On the Hub every file is listed with the SHA-256 of its content, or with the hash git gives it, the one
that commits themselves are named by. Two repositories with the same files have the same identity.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from ftsec_audit.artifact import Artifact
from ftsec_audit.errors import SourceError
from ftsec_audit.sources.hub import HubOpener


def pinned(artifact: Artifact) -> str:
    """A reference that means these bytes; for a folder of this machine its absolute path."""
    return artifact.resolved if Path(artifact.resolved).is_absolute() else f"hf://{artifact.resolved}"


def content_identity(artifact: Artifact) -> str:
    """Equal only for equal names and contents of all files, or for the same pinned reference.

    A local folder of up to 1 GiB is hashed. A larger one is known by the path, size and times of its
    files, of which the time of the last change cannot be set by who wrote them.
    """
    openers = {id(file.source): file.source for file in artifact.files}
    if len(openers) == 1 and isinstance(opener := next(iter(openers.values())), HubOpener):
        listed = {file.path: file for file in opener.listing.files}
        blobs = [(file.path, file.size, listed[opener.folder + file.path].blob) for file in artifact.files]
        if all(blob for _, _, blob in blobs):
            return f"git {_sha256(sorted(blobs))}"
    root = Path(artifact.resolved)
    if not root.is_absolute():
        return artifact.resolved
    return artifact.digest or f"stat {_sha256(_states(root, artifact))}"


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
