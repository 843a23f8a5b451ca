"""Byte ranges of one file on the Hub, fetched over HTTP and resumed where they broke off.

The address of a large file answers with a redirect to a storage host. The token is sent to the Hub alone:
the HTTP client drops it when a redirect leaves the origin, and the storage address, remembered to save the
detour for the next range, is asked without it.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote, urlsplit

from ftsec_audit.errors import SourceError
from ftsec_audit.sources import resumed
from ftsec_audit.sources.connection import Connection
from ftsec_audit.sources.hub_errors import explained, network_errors
from ftsec_audit.sources.listing import ListedFile, Listing
from ftsec_audit.sources.resumed import Position, Sink
from ftsec_audit.sources.transfer import Attempts

_CONTENT_RANGE = re.compile(r"^bytes (\d+)-\d+/(\d+|\*)$")
_EXPIRED = frozenset((400, 401, 403, 404, 410))
"""How storage hosts answer a signed address whose time is over."""


class ByteRanges:
    """Any part of one remote file.

    `longest_skip` bounds how many bytes are read and thrown away when a server ignores the range it is
    asked for and sends the file from its start.
    """

    def __init__(
        self, connection: Connection, listing: Listing, file: ListedFile, *, longest_skip: int = 64 << 20
    ) -> None:
        self.size = file.size
        self.where = f"{listing.repository}@{listing.commit[:12]}/{file.path}"
        self._connection = connection
        self._longest_skip = longest_skip
        self._address = (
            f"{connection.endpoint}/{listing.repository}/resolve/{listing.commit}/{quote(file.path)}"
        )
        self._storage_address: str | None = None

    def fetch(self, start: int, stop: int, sink: Sink) -> None:
        """Hand bytes `start` to `stop` (exclusive) to `sink`, in order, each once; raises SourceError."""
        connection = self._connection
        attempts = Attempts(connection.backoff, connection.transfer)
        with explained(self.where, endpoint=connection.endpoint):
            resumed.fetch(Position(start, stop, sink), self._counted, attempts, network_errors())

    def _counted(self, position: Position) -> None:
        with self._connection.transfer.counting():
            self._stream(position)

    def _stream(self, position: Position) -> None:
        """One request from `position` on. It may end early without an error; the caller asks again."""
        from huggingface_hub import get_session, hf_raise_for_status

        address = self._storage_address or self._address
        headers = self._connection.headers | {
            "Range": f"bytes={position.at}-{position.stop - 1}",
            "Accept-Encoding": "identity",
        }
        if self._storage_address:
            headers.pop("authorization", None)
        with get_session().stream(
            "GET", address, headers=headers, timeout=self._connection.timeout, follow_redirects=True
        ) as response:
            if self._storage_address and response.status_code in _EXPIRED:
                self._storage_address = None
                return
            hf_raise_for_status(response)
            if _origin(str(response.url)) != _origin(self._address):
                self._storage_address = str(response.url)
            skip = self._bytes_to_skip(response, position.at)
            for chunk in response.iter_raw():
                position.take(chunk[skip:])
                skip = max(0, skip - len(chunk))
                if position.at >= position.stop:
                    return

    def _bytes_to_skip(self, response: Any, start: int) -> int:
        """How far before `start` the answer begins."""
        if response.status_code == 200:
            if start > self._longest_skip:
                raise SourceError("the server cannot send a part of a file", where=self.where)
            return start
        match = _CONTENT_RANGE.match(response.headers.get("Content-Range", ""))
        if not match or int(match.group(1)) != start or match.group(2) not in ("*", str(self.size)):
            raise SourceError("the server sent another part of the file than was asked for", where=self.where)
        return 0


def _origin(address: str) -> tuple[str, str]:
    parts = urlsplit(address)
    return parts.scheme, parts.netloc
