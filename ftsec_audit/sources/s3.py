"""Object stores that speak S3: `s3://bucket/prefix` becomes a list of objects, an object bytes when opened.

A store has no commits. What a scan reads is named by the state of the listing: a digest over key, size,
ETag and time of every object. A reference that carries a state is refused once anything has changed.
"""

from __future__ import annotations

import hashlib
import shutil
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from ftsec_audit.artifact import Artifact
from ftsec_audit.contracts import Progress
from ftsec_audit.errors import SourceError
from ftsec_audit.files import ArtifactFile, ByteReader, LocalBytes
from ftsec_audit.sources.references import S3Reference
from ftsec_audit.sources.remote_bytes import BlockStore, RemoteBytes
from ftsec_audit.sources.s3_bucket import Bucket, ObjectRanges, StoredObject
from ftsec_audit.sources.transfer import Transfer

_MOST = 50_000
"""Objects below a prefix."""


@dataclass(frozen=True, kw_only=True)
class StoredFiles:
    """What a reference names now, of which nothing is opened."""

    bucket: Bucket
    reference: S3Reference
    """With its state."""
    objects: Mapping[str, StoredObject]
    """By path from the prefix on."""


class Copies:
    """Objects copied to a private folder, for as long as somebody may open them."""

    def __init__(self) -> None:
        self._folder: TemporaryDirectory[str] | None = None
        self._paths: dict[str, Path] = {}
        self._lock = threading.Lock()

    def of(self, ranges: ObjectRanges, progress: Progress) -> Path | None:
        """The copy, made unless it is there; None where the disk has no room for it."""
        with self._lock:
            if self._folder is None:
                self._folder = TemporaryDirectory(prefix="ftsec-audit-s3-")
            path = self._paths.get(ranges.where)
            if path is None and ranges.size <= shutil.disk_usage(self._folder.name).free:
                path = Path(self._folder.name, str(len(self._paths)))  # no name that a stranger chose
                progress.start(f"fetch {ranges.where}", ranges.size, "bytes")
                _write(ranges, path, progress)
                self._paths[ranges.where] = path
            return path


@dataclass(frozen=True, kw_only=True)
class S3Opener:
    """Opens the objects of one listing: small ones by a copy on disk, others by byte range."""

    files: StoredFiles
    whole_below: int = 64 << 20
    """Bytes up to which any object is copied whole."""
    adapter_whole_below: int = 2 << 30
    """The same for the weights of an adapter, of which an audit reads every byte."""
    _copies: Copies = field(default_factory=Copies, repr=False, compare=False)
    _readers: dict[str, RemoteBytes] = field(default_factory=dict, repr=False, compare=False)
    _store: BlockStore = field(default_factory=BlockStore, repr=False, compare=False)

    def __call__(self, path: str) -> ByteReader:
        listed = self.files.objects[path]
        ranges = ObjectRanges(self.files.bucket, listed)
        limit = self.adapter_whole_below if path.rsplit("/")[-1].startswith("adapter_") else self.whole_below
        if listed.size <= limit and (copy := self._copies.of(ranges, self.files.bucket.progress)):
            return LocalBytes(copy)
        return self._readers.setdefault(path, RemoteBytes(ranges, self._store))


def _write(ranges: ObjectRanges, path: Path, progress: Progress) -> None:
    def append(piece: bytes) -> None:
        out.write(piece)
        progress.advance(len(piece))

    try:
        with path.open("wb") as out:
            ranges.fetch(0, ranges.size, append)
    except OSError as error:
        what = f"cannot be copied to {path.parent}: {error.strerror}"
        raise SourceError(what, where=ranges.where, hint="point TMPDIR elsewhere") from error


def resolve_s3(
    reference: S3Reference,
    spelled: str,
    *,
    offline: bool = False,
    progress: Progress | None = None,
    transfer: Transfer | None = None,
) -> Artifact:
    """The artifact behind a reference to an object store; raises SourceError."""
    found = list_s3(reference, spelled, offline=offline, progress=progress, transfer=transfer)
    opener = S3Opener(files=found)
    files = tuple(ArtifactFile(path, listed.size, opener) for path, listed in sorted(found.objects.items()))
    return Artifact.of(spelled, str(found.reference), files)


def list_s3(
    reference: S3Reference,
    spelled: str,
    *,
    offline: bool = False,
    progress: Progress | None = None,
    transfer: Transfer | None = None,
) -> StoredFiles:
    """The objects below the prefix, or else the one that is called so; raises SourceError."""
    if offline:
        raise SourceError(
            "a bucket cannot be asked, this audit is offline", where=spelled, hint="name a folder"
        )
    bucket = Bucket.from_environment(reference.bucket, progress=progress, transfer=transfer)
    bucket.progress.start(f"list s3://{reference.bucket}/{reference.prefix}")
    objects = _below(bucket, f"{reference.prefix}/" if reference.prefix else "") or _single(bucket, reference)
    if not objects:
        raise SourceError("the bucket has no object there", where=spelled, hint="check the prefix")
    state = _state(objects.values())
    if reference.state not in ("", state):
        raise SourceError(
            "its objects are not those that were pinned: one was added, replaced or removed",
            where=spelled,
            hint=f"without @{reference.state[:8]}… it means what is there now",
        )
    return StoredFiles(bucket=bucket, reference=replace(reference, state=state), objects=objects)


def _below(bucket: Bucket, folder: str) -> dict[str, StoredObject]:
    """By path from `folder` on, without empty objects whose keys end in `/`, which stand for folders."""
    objects: dict[str, StoredObject] = {}
    for count, listed in enumerate(bucket.listed(folder, most=_MOST + 1), start=1):
        if count > _MOST:
            raise SourceError(
                f"more than {_MOST:,} objects",
                where=f"s3://{bucket.name}/{folder}",
                hint="name the model's own prefix",
            )
        if listed.size or not listed.key.endswith("/"):
            objects[listed.key.removeprefix(folder) or listed.key] = listed
    return objects


def _single(bucket: Bucket, reference: S3Reference) -> dict[str, StoredObject]:
    """The object called like the prefix: of all keys that begin with it, it would be the first."""
    if not reference.prefix:
        return {}
    first = next(bucket.listed(reference.prefix, most=1), None)
    if first is None or first.key != reference.prefix:
        return {}
    return {first.key.rpartition("/")[2] or first.key: first}


def _state(objects: Iterable[StoredObject]) -> str:
    """64 hex digits, other ones once an object is added, written again or removed."""
    known = sorted((listed.key, listed.size, listed.etag, listed.modified) for listed in objects)
    return hashlib.sha256(repr(known).encode("utf-8", "surrogateescape")).hexdigest()
