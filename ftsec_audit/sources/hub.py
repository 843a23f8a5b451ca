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
    packed,
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
    listing, is_new = _listing(connection, reference)
    if listing is None:
        return _cached_snapshot(connection, reference, spelled)
    if is_new:
        save_listing(connection.storage(reference.repository), reference.revision, listing)
    return Artifact.of(spelled, *_files(HubOpener(connection=connection, listing=listing), reference.folder))


@dataclass(frozen=True, kw_only=True)
class Listed:
    """What a Hub reference names, of which nothing is opened."""

    resolved: str
    files: tuple[ListedFile, ...]
    """Named from its folder on."""
    answer: str = ""
    """What the Hub was asked and said, to be kept (`listing.keep`); empty where it was kept before."""


def list_hub(connection: Connection, reference: HubReference) -> Listed | None:
    """Keeps nothing, unlike `resolve_hub`; raises SourceError.

    None means that only a snapshot without a listing is in the cache.
    """
    listing, is_new = _listing(connection, reference)
    if listing is None:
        return None
    resolved, folder, files = _within(listing, reference.folder)
    if folder:
        files = tuple(replace(file, path=file.path.removeprefix(folder)) for file in files)
    answer = packed(reference.repository, reference.revision, listing) if is_new else ""
    return Listed(resolved=resolved, files=files, answer=answer)


def _listing(connection: Connection, reference: HubReference) -> tuple[Listing | None, bool]:
    """And whether it was not kept before."""
    storage = connection.storage(reference.repository)
    revision = reference.revision
    listing = load_listing(storage, revision) if connection.offline or is_commit(revision) else None
    is_new = listing is None and not connection.offline
    if is_new:
        listing = fetch_listing(connection, reference.repository, revision)
    if listing is not None and listing.repository != reference.repository:
        connection.progress.note(f"{reference.repository} is now called {listing.repository}")
    return listing, is_new


def _files(opener: HubOpener, folder: str) -> tuple[str, tuple[ArtifactFile, ...]]:
    """What is resolved, and its files."""
    resolved, folder, files = _within(opener.listing, folder)
    opener, skip = replace(opener, folder=folder), len(folder)
    return resolved, tuple(ArtifactFile(file.path[skip:], file.size, opener, file.digest) for file in files)


def _within(listing: Listing, folder: str) -> tuple[str, str, tuple[ListedFile, ...]]:
    """All of a listing, one folder of it, or one file: what is resolved, what paths are relative to (with a
    trailing slash), the files; raises SourceError."""
    resolved = f"{listing.repository}@{listing.commit}"
    if not folder:
        return resolved, "", listing.files
    resolved += f"/{folder}"
    prefix, chosen = folder, tuple(file for file in listing.files if file.path.startswith(f"{folder}/"))
    if single := tuple(file for file in listing.files if file.path == folder):
        prefix, chosen = folder.rpartition("/")[0], single
    if not chosen:
        raise SourceError("no such folder or file at this commit", where=resolved)
    return resolved, f"{prefix}/" if prefix else "", chosen


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
