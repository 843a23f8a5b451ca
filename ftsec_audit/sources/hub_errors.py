"""What the Hub client's exceptions mean, in words a person can act on."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ftsec_audit.errors import SourceError
from ftsec_audit.sources.transfer import requested_wait

_TOKEN_HINT = "set HF_TOKEN to a token that may read it"
_OFFLINE_HINT = "check the connection, or use --offline for what is cached"


def network_errors() -> tuple[type[Exception], ...]:
    """Everything a request can raise: errors of the Hub, and of the HTTP library under the client."""
    import importlib

    from huggingface_hub import get_session
    from huggingface_hub.errors import HfHubHTTPError

    library = importlib.import_module(type(get_session()).__module__.partition(".")[0])
    return HfHubHTTPError, library.HTTPError


@contextmanager
def explained(where: str, *, endpoint: str, revision: str = "") -> Iterator[None]:
    """Turn whatever the Hub client raises in this block into a SourceError about `where`."""
    from huggingface_hub.errors import HFValidationError

    try:
        yield
    except network_errors() as error:
        raise _of_request(error, where, endpoint, revision) from error
    except HFValidationError as error:
        raise SourceError("not a valid name for a Hub repository", where=where) from error
    except OSError as error:
        raise _of_system(error, where, endpoint, revision) from error


def _of_request(error: Exception, where: str, endpoint: str, revision: str) -> SourceError:
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):  # a RepositoryNotFoundError too, so it comes first
        what = "access to this repository is gated"
        hint = f"accept its conditions at {endpoint}/{where.partition('@')[0]}, then {_TOKEN_HINT}"
        return SourceError(what, where=where, hint=hint)
    if isinstance(error, errors.DisabledRepoError):
        return SourceError("the Hub has disabled this repository", where=where)
    if isinstance(error, errors.RepositoryNotFoundError):
        what = "no such repository on the Hub, or it is private"
        return SourceError(what, where=where, hint=f"check the spelling; if it is private, {_TOKEN_HINT}")
    if isinstance(error, errors.RevisionNotFoundError):
        return SourceError(f"it has no branch, tag or commit {revision!r}", where=where)
    if isinstance(error, errors.EntryNotFoundError):
        return SourceError("the Hub has no such file at this commit", where=where)
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status is None:
        what = f"cannot reach {endpoint} ({type(error).__name__})"
        return SourceError(what, where=where, hint=_OFFLINE_HINT)
    return _of_status(status, error, where, endpoint)


def _of_status(status: int, error: Exception, where: str, endpoint: str) -> SourceError:
    if status in (401, 403):
        what = f"{endpoint} refuses access (HTTP {status})"
        return SourceError(what, where=where, hint=f"the token is invalid or not enough; {_TOKEN_HINT}")
    if status == 429:
        wait = requested_wait(error)
        hint = f"wait {wait:.0f} s" if wait else "wait some minutes"
        return SourceError(
            f"{endpoint} limits the rate of requests (HTTP 429)",
            where=where,
            hint=f"{hint} and run again: what is downloaded is kept; {_TOKEN_HINT} for a higher limit",
        )
    if status == 416:
        return SourceError("the file is shorter on the server than it is listed", where=where)
    return SourceError(f"{endpoint} failed (HTTP {status})", where=where, hint="try again later")


def _of_system(error: OSError, where: str, endpoint: str, revision: str) -> SourceError:
    # The client hides the reason of a failed look-up behind "not in the cache".
    cause: Any = error.__cause__
    if isinstance(cause, network_errors()):
        return _of_request(cause, where, endpoint, revision)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return disk_full(where)
    reason = error.strerror or f"the download failed ({type(cause or error).__name__})"
    return SourceError(reason, where=where)


def disk_full(where: str, *, needed: int | None = None, free: int | None = None) -> SourceError:
    """No room in the cache; sizes in bytes."""
    detail = "" if needed is None or free is None else f": {needed:,} bytes needed, {free:,} free"
    return SourceError(
        f"the disk that holds the Hub cache is full{detail}",
        where=where,
        hint="free some space or point HF_HOME elsewhere; what is downloaded is kept",
    )
