"""From a branch, tag, alias or prefix to what it is now: a commit or version, or the state of a listing."""

from __future__ import annotations

from ftsec_audit.contracts import Progress
from ftsec_audit.errors import SourceError
from ftsec_audit.sources.connection import Connection
from ftsec_audit.sources.listing import cached_commit, fetch_listing, is_commit, save_listing
from ftsec_audit.sources.references import LocalReference, MlflowReference, S3Reference, parse


def is_open(reference: str) -> bool:
    """Whether what `reference` means can change where it lies; a local path has no commit to name."""
    parsed = parse(reference)
    if isinstance(parsed, MlflowReference):
        return bool(parsed.alias)
    if isinstance(parsed, S3Reference):
        return not parsed.state
    return not isinstance(parsed, LocalReference) and not is_commit(parsed.revision)


def pinned(
    reference: str, *, token: str | None = None, offline: bool = False, progress: Progress | None = None
) -> str:
    """`reference` with the commit, version or state it means now, and the name the repository has now.

    Raises SourceError.
    """
    parsed = parse(reference)
    if isinstance(parsed, MlflowReference):
        return _numbered(parsed, reference, offline=offline)
    if isinstance(parsed, S3Reference):
        return reference if parsed.state else _with_state(parsed, reference, offline, progress)
    if isinstance(parsed, LocalReference) or is_commit(parsed.revision):
        return reference
    connection = Connection.from_environment(token=token, offline=offline, progress=progress)
    storage = connection.storage(parsed.repository)
    if connection.offline:
        commit, repository = cached_commit(storage, parsed.revision), parsed.repository
        if commit is None:
            raise SourceError("its commit is not in the cache, and this is offline", where=reference)
    else:
        listing = fetch_listing(connection, parsed.repository, parsed.revision)
        save_listing(storage, parsed.revision, listing)
        commit, repository = listing.commit, listing.repository
    scheme = reference[: reference.index(parsed.repository)]
    folder = f"/{parsed.folder}" if parsed.folder else ""
    return f"{scheme}{repository}@{commit}{folder}"


def _with_state(parsed: S3Reference, spelled: str, offline: bool, progress: Progress | None) -> str:
    """A state brings nothing back that was overwritten, but whatever has changed since is refused."""
    from ftsec_audit.sources.s3 import list_s3

    return str(list_s3(parsed, spelled, offline=offline, progress=progress).reference)


def _numbered(reference: MlflowReference, spelled: str, *, offline: bool) -> str:
    if not reference.alias:
        return spelled
    if offline:
        raise SourceError("a registry cannot be asked, this is offline", where=spelled)
    from ftsec_audit.sources.mlflow_registry import Registry

    version = Registry.from_environment().find(reference)
    return f"{version}/{reference.folder}" if reference.folder else str(version)
