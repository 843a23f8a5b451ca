"""What a commit of a Hub repository holds: names, sizes and digests, known before any byte is fetched.

A commit never changes, so its listing is kept beside the client's cache of that repository: a pinned
revision needs no request, and an audit without a network knows which files it lacks.
"""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from ftsec_audit.errors import SourceError
from ftsec_audit.sources.connection import Connection, storage_of
from ftsec_audit.sources.model_page import model_page

_COMMIT = re.compile(r"^[0-9a-f]{40}$")
_FORMAT = 1
_MAX_ENTRIES = 50_000
_TRUNCATED = 1000
"""From this many files on, the model page's own list may be cut short."""


@dataclass(frozen=True, kw_only=True)
class ListedFile:
    """One file of a commit."""

    path: str
    size: int
    blob: str
    """The name of its content: sha256 in hex for a large file, else git's sha1; hostile."""

    @property
    def digest(self) -> str:
        """`sha256:…`, or empty where only git's own hash is known."""
        return f"sha256:{self.blob}" if re.fullmatch(r"[0-9a-f]{64}", self.blob) else ""


@dataclass(frozen=True, kw_only=True)
class Listing:
    """A repository at a commit."""

    repository: str
    """Its present name, which may differ from the one asked for."""
    commit: str
    files: tuple[ListedFile, ...]


def is_commit(revision: str) -> bool:
    """Whether `revision` is a full commit id, which always means the same bytes."""
    return bool(_COMMIT.match(revision))


def fetch_listing(connection: Connection, repository: str, revision: str) -> Listing:
    """Ask the Hub which commit `revision` is and what it holds; raises SourceError."""
    where = f"{repository}@{revision}" if revision else repository

    def question() -> Listing:
        page = model_page(connection, repository, revision or "main")
        return (page and _of_page(page)) or _of_client(connection, repository, revision or "main", where)

    return connection.ask(question, where, revision=revision)


def _of_page(page: dict[str, Any]) -> Listing | None:
    """None where it does not say everything about all files."""
    try:
        siblings = page["siblings"]
        if len(siblings) >= _TRUNCATED or not is_commit(page["sha"]):
            return None
        files = tuple(sorted(map(_of_sibling, siblings), key=lambda file: file.path))
        return Listing(repository=str(page["id"]), commit=page["sha"], files=files)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        return None


def _of_sibling(sibling: dict[str, Any]) -> ListedFile:
    lfs = sibling.get("lfs")
    size, blob = (lfs["size"], lfs["sha256"]) if lfs else (sibling["size"], sibling["blobId"])
    return ListedFile(path=str(sibling["rfilename"]), size=int(size), blob=str(blob))


def _of_client(connection: Connection, repository: str, revision: str, where: str) -> Listing:
    api = connection.api()
    answer = api.model_info(repository, revision=revision, files_metadata=True, timeout=connection.timeout)
    commit = str(answer.sha)
    if not is_commit(commit):
        raise ValueError("the Hub names no commit")
    entries: list[Any] = list(answer.siblings or [])
    if len(entries) >= _TRUNCATED or any(entry.size is None for entry in entries):
        tree = islice(api.list_repo_tree(answer.id, recursive=True, revision=commit), _MAX_ENTRIES + 1)
        entries = [entry for entry in tree if hasattr(entry, "blob_id")]
    if len(entries) > _MAX_ENTRIES:
        raise SourceError(f"more than {_MAX_ENTRIES:,} files", where=where)
    return Listing(repository=answer.id, commit=commit, files=_files(entries))


def _files(entries: Iterable[Any]) -> tuple[ListedFile, ...]:
    files = (
        ListedFile(
            path=str(entry.rfilename),
            size=int(entry.lfs.size if entry.lfs else entry.size),
            blob=str(entry.lfs.sha256 if entry.lfs else entry.blob_id),
        )
        for entry in entries
    )
    return tuple(sorted(files, key=lambda file: file.path))


def save_listing(storage: Path, revision: str, listing: Listing) -> None:
    """Keep a listing, and which commit `revision` was, in the cache of the repository asked for.

    The reference is written where the Hub client itself would write it. A cache that cannot be written
    (read-only, full) costs a request next time and nothing else.
    """
    try:
        _write(_listing_path(storage, listing.commit), json.dumps(_plain(listing)))
        if not is_commit(revision) and (path := _revision_path(storage, revision)):
            _write(path, listing.commit)
        (storage / "snapshots").mkdir(exist_ok=True)  # the client calls a cache without it corrupt
    except OSError:
        return


def packed(repository: str, revision: str, listing: Listing) -> str:
    """A listing and what was asked for, as text for another process to `keep`."""
    return json.dumps([repository, revision, _plain(listing)])


def keep(text: str, cache_dir: Path) -> None:
    """Save what another process has asked for, also under the present name of the repository."""
    repository, revision, content = json.loads(text)
    listing = _listing_of(content)
    for name in dict.fromkeys((repository, listing.repository)):
        save_listing(storage_of(cache_dir, name), revision, listing)


def _plain(listing: Listing) -> dict[str, Any]:
    return {"format": _FORMAT, **vars(listing), "files": [vars(file) for file in listing.files]}


def _listing_of(content: dict[str, Any]) -> Listing:
    """Raises ValueError, KeyError, TypeError, AttributeError for what `_plain` has not made."""
    if content.pop("format") != _FORMAT:
        raise ValueError("another format")
    files = tuple(ListedFile(**file) for file in content.pop("files"))
    return Listing(files=files, **content)


def load_listing(storage: Path, revision: str) -> Listing | None:
    """The listing kept for `revision`, if there is one."""
    commit = cached_commit(storage, revision)
    if commit is None:
        return None
    try:
        return _listing_of(json.loads(_listing_path(storage, commit).read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def cached_commit(storage: Path, revision: str) -> str | None:
    """The commit that `revision` was when it was last asked for."""
    if is_commit(revision):
        return revision
    path = _revision_path(storage, revision)
    try:
        commit = path.read_text(encoding="ascii").strip() if path else ""
    except (OSError, ValueError):
        return None
    return commit if is_commit(commit) else None


def _listing_path(storage: Path, commit: str) -> Path:
    return storage / "ftsec-audit" / f"{commit}.json"


def _revision_path(storage: Path, revision: str) -> Path | None:
    """The client's own note of what a branch or tag was; None for a name that would lead elsewhere."""
    parts = (revision or "main").split("/")
    return None if {"", ".", ".."} & set(parts) else storage.joinpath("refs", *parts)


def _write(path: Path, text: str) -> None:
    """Write all of it or nothing, also when two audits write at once."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}")
    try:
        temporary.write_text(text, encoding="utf-8")
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
