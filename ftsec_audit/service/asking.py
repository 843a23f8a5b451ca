"""What a request may hold, and how it is refused: bodies bounded, filters read, secrets compared."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ftsec_audit.batch.index import Filter
from ftsec_audit.errors import SourceError
from ftsec_audit.sources.references import is_explicit_path, parse_hub
from ftsec_audit.types import Verdict

if TYPE_CHECKING:
    from starlette.requests import Request

MAX_BODY = 1 << 20
_PATIENCE = 10.0  # seconds for a body to arrive
_DAY = re.compile(r"^\d{4}-\d{2}-\d{2}(T\d{2}:\d{2}(:\d{2})?Z?)?$", re.ASCII)
_RULE = re.compile(r"^[A-Za-z]{1,5}\d{0,5}$", re.ASCII)
_MOST = 500
NO_REPORT = "none"
"""In place of a verdict: artifacts that have no report."""


class Refused(Exception):
    """An answer other than success."""

    def __init__(self, *, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


def same(given: str, expected: str) -> bool:
    """Compares in a time that does not depend on where they differ."""
    return hmac.compare_digest(
        hashlib.sha256(given.encode("utf-8", "surrogateescape")).digest(),
        hashlib.sha256(expected.encode()).digest(),
    )


async def body_of(request: Request, *, most: int = MAX_BODY) -> bytes:
    """The body, never more than `most` bytes of it in memory. Raises Refused."""
    parts, size = [], 0
    try:
        async with asyncio.timeout(_PATIENCE):
            async for part in request.stream():
                size += len(part)
                if size > most:
                    raise Refused(status=413, reason=f"the body has more than {most:,} bytes")
                parts.append(part)
    except TimeoutError:
        raise Refused(status=408, reason="the body did not arrive in time") from None
    return b"".join(parts)


def wanted(query: Mapping[str, str], *, page: int = 100) -> Filter:
    """The documents that a query string asks for; empty values count as absent. Raises Refused."""
    verdict, rule, since = (query.get(name, "").strip() for name in ("verdict", "rule", "since"))
    if verdict not in ("", NO_REPORT, *Verdict):
        raise Refused(status=422, reason=f"verdict is one of {', '.join(Verdict)}, {NO_REPORT}")
    if rule and not _RULE.match(rule):
        raise Refused(status=422, reason="rule is an id or the start of one, such as FTA3")
    if since and not _DAY.match(since):
        raise Refused(status=422, reason="since is a day, such as 2026-01-31")
    return Filter(
        failed=verdict == NO_REPORT,
        verdict=Verdict(verdict) if verdict in tuple(Verdict) else None,
        rule=rule.upper(),
        since=since,
        text=_text(query, "text"),
        repository=_text(query, "repository"),
        latest_first=_text(query, "order") == "latest",
        limit=_number(query, "limit", page, _MOST),
        offset=_number(query, "offset", 0, 1 << 40),
    )


def hub_reference(text: str) -> str:
    """A reference to the Hub, in full. Paths are refused: nobody looks at this machine from outside."""
    try:
        if is_explicit_path(text):
            raise SourceError("a path")
        found = parse_hub(text.strip())
    except SourceError as error:
        raise Refused(status=422, reason="a reference is written org/model or org/model@revision") from error
    revision = f"@{found.revision}" if found.revision else ""
    return f"hf://{found.repository}{revision}" + (f"/{found.folder}" if found.folder else "")


def _text(query: Mapping[str, str], name: str) -> str:
    value = query.get(name, "")
    if len(value) > 300 or "\0" in value:
        raise Refused(status=422, reason=f"{name} is too long or holds a zero byte")
    return value


def _number(query: Mapping[str, str], name: str, default: int, most: int) -> int:
    value = query.get(name, "") or str(default)
    if not (value.isascii() and value.isdigit() and len(value) < 16 and int(value) <= most):
        raise Refused(status=422, reason=f"{name} is a number up to {most}")
    return int(value)
