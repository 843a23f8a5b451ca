"""What was asked of the server, and how many bytes were sent for it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass
class Request:
    """One request, filled in while it is answered."""

    method: str
    host: str
    """`hub` or `storage`."""
    path: str
    """With the query string."""
    range: str = ""
    token: str = ""
    """The bearer token that came with it, if any."""
    user_agent: str = ""
    status: int = 0
    sent: int = 0
    """Bytes of body that were sent."""


@dataclass
class RequestLog:
    """Every request in order; appending is atomic, so reading needs no lock."""

    requests: list[Request] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.requests)

    def __iter__(self) -> Iterator[Request]:
        return iter(self.requests)

    def clear(self) -> None:
        self.requests.clear()

    def bytes_sent(self, containing: str = "") -> int:
        return sum(request.sent for request in self.requests if containing in request.path)

    def of(self, containing: str, *, method: str = "") -> list[Request]:
        """The requests whose path holds `containing`."""
        return [r for r in self.requests if containing in r.path and method in ("", r.method)]
