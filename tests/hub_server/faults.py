"""Trouble to order: each fault hits the requests it matches, a number of times."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase


@dataclass
class Fault:
    """What goes wrong with requests whose path matches `path`."""

    path: str = "*"
    """A shell pattern for the path without the query string."""
    method: str = ""
    """Only this method; empty means any."""
    host: str = ""
    """`hub`, `storage` or empty for both."""
    times: int = 1 << 30
    """How many requests are hit before the fault is over."""
    status: int = 0
    """Answer with this status instead of the content."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Sent along with `status`, e.g. `{"Retry-After": "1"}`."""
    cut_after: int | None = None
    """Close the connection after this many bytes of body."""
    delay: float = 0.0
    """Seconds before the answer."""
    pace: float = 0.0
    """Seconds between two pieces of 16 KiB."""
    ignore_range: bool = False
    """Send the file from its start, whatever part was asked for."""
    corrupt: bool = False
    """Flip the bits of the body."""
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def hits(self, method: str, host: str, path: str) -> bool:
        """Whether this request is hit; counts it if so."""
        if self.method not in ("", method) or self.host not in ("", host) or not fnmatchcase(path, self.path):
            return False
        with self._lock:
            self.times -= 1
            return self.times >= 0
