"""Whole files from the Hub into the client's own cache, resumed where an earlier run broke off.

The client keeps no partial file when it fails. So the bytes are fetched here, into `<blob>.incomplete` next
to the place the client looks in, compared with the digest the Hub announces, and moved into place; the
client then finds the content present, checks its identity with the Hub and files it under its commit.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from pathlib import Path
from typing import BinaryIO

from ftsec_audit.errors import SourceError
from ftsec_audit.files import LocalBytes, blocks
from ftsec_audit.sources.byte_range import ByteRanges
from ftsec_audit.sources.connection import Connection
from ftsec_audit.sources.hub_errors import disk_full, explained
from ftsec_audit.sources.listing import ListedFile, Listing

_DRIVE = re.compile(r"^[A-Za-z]:")
_BLOB = re.compile(r"^(?:[0-9a-f]{40}|[0-9a-f]{64})$")


def cached(connection: Connection, listing: Listing, file: ListedFile) -> Path | None:
    """Where the client's cache holds this file of this commit, if it does."""
    from huggingface_hub import try_to_load_from_cache

    if _leads_out(file.path):
        raise SourceError("a name that could lead out of the cache; not fetched", where=file.path)
    path = try_to_load_from_cache(
        listing.repository, file.path, cache_dir=connection.cache_dir, revision=listing.commit
    )
    if not isinstance(path, str):
        return None
    if Path(path).stat().st_size != file.size:
        raise SourceError(
            "the copy in the cache has another size than the Hub lists", where=path, hint="delete it"
        )
    return Path(path)


def _leads_out(path: str) -> bool:
    """Whether a file name from the Hub could mean a place elsewhere, on this or another system.

    The client refuses such names too, but not in every version and not on every system.
    """
    parts = re.split(r"[/\\]", path)
    return bool({"", ".", ".."} & set(parts)) or "\0" in path or any(_DRIVE.match(part) for part in parts)


def download(connection: Connection, listing: Listing, file: ListedFile) -> Path:
    """The local copy of a file, fetched unless the cache has it; raises SourceError."""
    from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]  # lazily exported

    if path := cached(connection, listing, file):
        return path
    where = f"{listing.repository}@{listing.commit[:12]}/{file.path}"
    if connection.offline:
        raise SourceError(
            "not in the cache, and this audit is offline", where=where, hint="run without --offline"
        )
    storage = connection.storage(listing.repository)
    if _BLOB.match(file.blob):
        with explained(where, endpoint=connection.endpoint):
            (storage / "blobs").mkdir(parents=True, exist_ok=True)
            lock = connection.cache_dir / ".locks" / storage.name / f"{file.blob}.lock"  # the client's own
            lock.parent.mkdir(parents=True, exist_ok=True)
            with WeakFileLock(lock):
                _fill(connection, ByteRanges(connection, listing, file), storage / "blobs" / file.blob)
    return _file_under_commit(connection, listing, file, where)


def _fill(connection: Connection, ranges: ByteRanges, blob: Path) -> None:
    """Make `blob` exist, with the content its name promises."""
    if blob.exists():
        return
    partial = blob.with_name(f"{blob.name}.incomplete")
    connection.progress.start(f"fetch {ranges.where}", ranges.size, "bytes")
    with partial.open("ab") as out:
        start = out.tell()
        if start > ranges.size:
            start = out.truncate(0)
        free = shutil.disk_usage(blob.parent).free
        if ranges.size - start > free:
            raise disk_full(ranges.where, needed=ranges.size - start, free=free)
        connection.progress.advance(start)
        ranges.fetch(start, ranges.size, lambda piece: _append(connection, out, piece))
    if _digest(partial, blob.name) != blob.name:
        partial.unlink()
        raise SourceError(
            "what arrived does not have the digest the Hub announces", where=ranges.where, hint="run again"
        )
    partial.replace(blob)


def _append(connection: Connection, out: BinaryIO, piece: bytes) -> None:
    out.write(piece)
    connection.progress.advance(len(piece))


def _digest(path: Path, like: str) -> str:
    """sha256, or the sha1 that git gives a blob, whichever `like` is."""
    reader = LocalBytes(path)
    if len(like) == hashlib.sha256().digest_size * 2:
        digest = hashlib.sha256()
    else:
        digest = hashlib.sha1(b"blob %d\0" % reader.size, usedforsecurity=False)
    for block in blocks(reader):
        digest.update(block)
    return digest.hexdigest()


def _file_under_commit(connection: Connection, listing: Listing, file: ListedFile, where: str) -> Path:
    """Let the genuine client do its bookkeeping, and the download where we know no content name."""
    api = connection.api()
    path = connection.ask(
        lambda: api.hf_hub_download(
            listing.repository, file.path, revision=listing.commit, cache_dir=connection.cache_dir
        ),
        where,
    )
    return Path(path)
