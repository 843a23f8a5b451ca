"""What the Hub says about a model at a revision, asked for with little around the request.

Planning a batch asks this once for each artifact, and the Hub's client spends three milliseconds of CPU on
an answer that takes a tenth of one. So it is asked here, over a connection that each thread keeps. Only an
ordinary answer is taken; errors are raised as the client raises them, and all else is left to the client.
"""

from __future__ import annotations

import importlib
import json
import os
import threading
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlsplit
from urllib.request import getproxies

from ftsec_audit.sources.connection import Connection
from ftsec_audit.sources.kept_connection import Answer, Ended, KeptConnection, Unusual

_HELD = threading.local()


def model_page(connection: Connection, repository: str, revision: str) -> dict[str, Any] | None:
    """The answer with sizes and digests of files; raises what the Hub's client raises for its errors.

    None where the client has to be asked: behind a proxy, after a redirect, when the connection breaks,
    and from then on wherever the answer is not one of a Hub.
    """
    lane = _lane(connection.endpoint)
    if not lane.open:
        return None
    path = f"/api/models/{quote(repository)}/revision/{quote(revision, safe='')}?blobs=true"
    try:
        answer = lane.kept.get(path, connection.headers, timeout=connection.timeout)
    except Ended:
        return None
    except (OSError, Unusual):
        lane.open = False
        return None
    connection.transfer.add(requests=1, bytes=len(answer.body))
    if answer.status >= 400:
        _raise(answer, connection.endpoint + path)
    return _object(answer, lane) if answer.status == 200 else None


@dataclass
class _Lane:
    """The connection of one thread to one endpoint, for as long as it is of use."""

    endpoint: str
    process: int
    """A child that was forked must not write into the connection of its parent."""
    kept: KeptConnection = field(repr=False)
    open: bool


def _lane(endpoint: str) -> _Lane:
    lane: _Lane | None = getattr(_HELD, "lane", None)
    if lane is None or (lane.endpoint, lane.process) != (endpoint, os.getpid()):
        direct = not {urlsplit(endpoint).scheme, "all"} & set(getproxies())
        lane = _HELD.lane = _Lane(endpoint, os.getpid(), KeptConnection(endpoint), direct)
    return lane


def _raise(answer: Answer, address: str) -> None:
    from huggingface_hub import get_session, hf_raise_for_status

    library = importlib.import_module(type(get_session()).__module__.partition(".")[0])
    request = library.Request("GET", address)
    headers = list(answer.headers.items())
    hf_raise_for_status(
        library.Response(answer.status, headers=headers, content=answer.body, request=request)
    )


def _object(answer: Answer, lane: _Lane) -> dict[str, Any] | None:
    try:
        found = json.loads(answer.body)
    except (ValueError, RecursionError):
        found = None
    lane.open = isinstance(found, dict)
    return found if isinstance(found, dict) else None
