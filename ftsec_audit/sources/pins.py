"""From a branch, tag or alias to the commit or version that it is now: what means these bytes for good."""

from __future__ import annotations

from ftsec_audit.contracts import Progress
from ftsec_audit.errors import SourceError
from ftsec_audit.sources.connection import Connection
from ftsec_audit.sources.listing import cached_commit, fetch_listing, is_commit, save_listing
from ftsec_audit.sources.references import LocalReference, MlflowReference, parse


def is_open(reference: str) -> bool:
    """Whether what `reference` means can change on the Hub; a local path has no commit to name."""
    parsed = parse(reference)
    if isinstance(parsed, MlflowReference):
        return bool(parsed.alias)
    return not isinstance(parsed, LocalReference) and not is_commit(parsed.revision)


def pinned(
    reference: str, *, token: str | None = None, offline: bool = False, progress: Progress | None = None
) -> str:
    """`reference` with the commit it means now, and the name the repository has now; raises SourceError."""
    parsed = parse(reference)
    if isinstance(parsed, MlflowReference):
        return _numbered(parsed, reference, offline=offline)
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


def _numbered(reference: MlflowReference, spelled: str, *, offline: bool) -> str:
    if not reference.alias:
        return spelled
    if offline:
        raise SourceError("a registry cannot be asked, this is offline", where=spelled)
    from ftsec_audit.sources.mlflow_registry import Registry

    version = Registry.from_environment().find(reference)
    return f"{version}/{reference.folder}" if reference.folder else str(version)
