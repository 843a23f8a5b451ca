"""Models on the Hub: a reference becomes a commit, a commit a list of files, a file bytes when opened."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from ftsec_audit.artifact import Artifact
from ftsec_audit.errors import SourceError
from ftsec_audit.files import ArtifactFile, ByteReader, LocalBytes
from ftsec_audit.sources.byte_range import ByteRanges
from ftsec_audit.sources.connection import Connection
from ftsec_audit.sources.download import cached, download
from ftsec_audit.sources.listing import (
    ListedFile,
    Listing,
    cached_commit,
    fetch_listing,
    is_commit,
    load_listing,
    save_listing,
)
from ftsec_audit.sources.local import resolve_local
from ftsec_audit.sources.references import HubReference
from ftsec_audit.sources.remote_bytes import BlockStore, RemoteBytes


@dataclass(frozen=True, kw_only=True)
class HubOpener:
    """Opens the files of one commit: from the cache, by downloading them, or by byte range."""

    connection: Connection
    listing: Listing
    folder: str = ""
    """What the artifact's paths are relative to, with a trailing slash."""
    whole_below: int = 64 << 20
    """Bytes up to which any file is downloaded whole."""
    adapter_whole_below: int = 2 << 30
    """The same for the weights of an adapter, of which an audit reads every byte."""
    _readers: dict[str, RemoteBytes] = field(default_factory=dict, repr=False, compare=False)
    """One for each large file, so that a header that is read twice is fetched once."""
    _store: BlockStore = field(default_factory=BlockStore, repr=False, compare=False)

    def __call__(self, path: str) -> ByteReader:
        file = self._listed(self.folder + path)
        if copy := cached(self.connection, self.listing, file):
            return LocalBytes(copy)
        limit = self.adapter_whole_below if path.rsplit("/")[-1].startswith("adapter_") else self.whole_below
        if file.size > limit and not self.connection.offline:
            ranges = ByteRanges(self.connection, self.listing, file)
            return self._readers.setdefault(file.path, RemoteBytes(ranges, self._store))
        return LocalBytes(download(self.connection, self.listing, file))

    def _listed(self, path: str) -> ListedFile:
        return next(file for file in self.listing.files if file.path == path)


def resolve_hub(connection: Connection, reference: HubReference, spelled: str) -> Artifact:
    """The artifact behind a Hub reference, pinned to a commit; raises SourceError."""
    listing = _listing(connection, reference)
    if listing is None:
        return _cached_snapshot(connection, reference, spelled)
    return Artifact.of(spelled, *_files(HubOpener(connection=connection, listing=listing), reference.folder))


def list_hub(connection: Connection, reference: HubReference) -> tuple[str, tuple[ArtifactFile, ...]] | None:
    """Commit and files of a Hub reference, of which none is opened; raises SourceError.

    None means that only a snapshot without a listing is in the cache.
    """
    listing = _listing(connection, reference)
    if listing is None:
        return None
    return _files(HubOpener(connection=connection, listing=listing), reference.folder)


def _listing(connection: Connection, reference: HubReference) -> Listing | None:
    storage = connection.storage(reference.repository)
    revision = reference.revision
    listing = load_listing(storage, revision) if connection.offline or is_commit(revision) else None
    if listing is None and connection.offline:
        return None
    if listing is None:
        listing = fetch_listing(connection, reference.repository, revision)
        save_listing(storage, revision, listing)
    if listing.repository != reference.repository:
        connection.progress.note(f"{reference.repository} is now called {listing.repository}")
    return listing


def _files(opener: HubOpener, folder: str) -> tuple[str, tuple[ArtifactFile, ...]]:
    """Of all of a listing, of one folder of it, or of one file: what is resolved, and the files."""
    listing = opener.listing
    resolved = f"{listing.repository}@{listing.commit}"
    if folder:
        resolved += f"/{folder}"
        if any(file.path == folder for file in listing.files):
            prefix = folder.rpartition("/")[0]
            chosen = [file for file in listing.files if file.path == folder]
        else:
            prefix = folder
            chosen = [file for file in listing.files if file.path.startswith(f"{folder}/")]
        if not chosen:
            raise SourceError("no such folder or file at this commit", where=resolved)
        opener = replace(opener, folder=f"{prefix}/" if prefix else "")
    else:
        chosen = list(listing.files)
    skip = len(opener.folder)
    return resolved, tuple(ArtifactFile(file.path[skip:], file.size, opener, file.digest) for file in chosen)


def _cached_snapshot(connection: Connection, reference: HubReference, spelled: str) -> Artifact:
    """What another tool left in the cache: files without a listing, so perhaps not all of them."""
    storage = connection.storage(reference.repository)
    commit = cached_commit(storage, reference.revision)
    snapshot = storage / "snapshots" / str(commit) / reference.folder
    if commit is None or not snapshot.exists():
        raise SourceError(
            "nothing of it is in the cache, and this audit is offline",
            where=spelled,
            hint=f"looked in {connection.cache_dir}; run once without --offline",
        )
    artifact = resolve_local(snapshot, spelled)
    resolved = f"{reference.repository}@{commit}" + (f"/{reference.folder}" if reference.folder else "")
    problem = "offline: only the files in the cache are listed, the repository may hold more"
    return replace(artifact, resolved=resolved, problems=(*artifact.problems, problem))
