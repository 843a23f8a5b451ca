"""What the network costs and how it is retried: bytes and answers counted, waits between attempts."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from time import sleep, time
from typing import Any

_TRANSIENT = frozenset((408, 429, 500, 502, 503, 504))
_RESET = re.compile(r";\s*t\s*=\s*(\d+)")

# The answers received in this context, while somebody counts them.
_ANSWERS: ContextVar[list[Any] | None] = ContextVar("_ANSWERS", default=None)


def _notice(response: Any) -> None:
    if (answers := _ANSWERS.get()) is not None:
        answers.append(response)


@dataclass
class Transfer:
    """Counts what came over the network: the one mutable value of a source, shared with the caller."""

    requests: int = 0
    """Answers received, redirects included."""
    bytes: int = 0
    """Bytes of answer bodies as they travelled, without headers."""
    given_up: int = 0
    """Requests that failed as often as is tried, though the same may succeed another time."""
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count every answer that the Hub client's shared session gets in this block."""
        from huggingface_hub import get_session

        hooks = get_session().event_hooks["response"]
        if _notice not in hooks:
            hooks.append(_notice)
        token = _ANSWERS.set([])
        try:
            yield
        finally:
            answers = _ANSWERS.get() or []
            _ANSWERS.reset(token)
            self.add(requests=len(answers), bytes=sum(answer.num_bytes_downloaded for answer in answers))

    def add(self, *, requests: int, bytes: int) -> None:
        with self._lock:
            self.requests += requests
            self.bytes += bytes

    def give_up(self) -> None:
        with self._lock:
            self.given_up += 1


@dataclass(frozen=True, kw_only=True)
class Backoff:
    """How often and how patiently a failed request is made again."""

    attempts: int = 5
    first_wait: float = 1.0
    """Seconds before the second attempt; doubles with each further one."""
    longest_wait: float = 60.0
    """Seconds; a server that asks for more patience than this gets none."""

    @classmethod
    def from_environment(cls) -> Backoff:
        """FTSEC_AUDIT_PATIENCE, in seconds, is the longest wait; what is no number is not obeyed."""
        try:
            longest = float(os.environ.get("FTSEC_AUDIT_PATIENCE", ""))
        except ValueError:
            return cls()
        return cls(longest_wait=longest) if longest >= 0 else cls()


class Attempts:
    """The failures of one piece of work; `failed` waits before the next attempt or gives up."""

    def __init__(self, backoff: Backoff, transfer: Transfer) -> None:
        self._backoff, self._transfer = backoff, transfer
        self._failures = 0

    def progressed(self) -> None:
        """Forget earlier failures: the work has moved on since."""
        self._failures = 0

    def failed(self, error: Exception) -> None:
        """Sleep if another attempt makes sense, else raise `error`."""
        self._failures += 1
        wait = self._backoff.first_wait * 2 ** (self._failures - 1)
        asked = requested_wait(error)
        if not _is_transient(error):
            raise error
        too_long = asked is not None and asked > self._backoff.longest_wait
        if self._failures >= self._backoff.attempts or too_long:
            self._transfer.give_up()
            raise error
        sleep(min(wait, self._backoff.longest_wait) if asked is None else asked)


def requested_wait(error: Exception) -> float | None:
    """Seconds the server asks to wait (`Retry-After` in seconds or as a date, or `RateLimit: …;t=`)."""
    headers = getattr(getattr(error, "response", None), "headers", {})
    if (retry_after := headers.get("Retry-After", "").strip()).isdigit():
        return float(retry_after)
    with suppress(ValueError, TypeError):
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - time())
    if match := _RESET.search(headers.get("RateLimit", "")):
        return float(match.group(1))
    return None


def _is_transient(error: Exception) -> bool:
    """Whether the same request may succeed later: the network failed, or the server was busy."""
    response = getattr(error, "response", None)
    return response is None or response.status_code in _TRANSIENT
