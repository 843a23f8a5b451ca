"""A connection that is kept for many small GET requests, with as much of HTTP/1.1 as their answers need.

No redirect is followed, nothing is retried or decompressed, and an answer is taken only where it leaves no
doubt about its length.
"""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import BinaryIO
from urllib.parse import urlsplit

_LONGEST_LINE = 16 << 10
_MOST_HEADERS = 100
_MOST = 32 << 20
"""Bytes of a body."""


class Ended(Exception):
    """A connection that worked has been closed by the other side, or broke; a new one may work."""


class Unusual(Exception):
    """The answer is not understood here."""


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    """By name in small letters; of several with one name, the last."""
    body: bytes


class KeptConnection:
    """To one endpoint: scheme, host and perhaps a path. For one thread at a time."""

    def __init__(self, endpoint: str) -> None:
        parts = urlsplit(endpoint)
        self._secure, self._host, self._prefix = parts.scheme == "https", parts.netloc, parts.path
        self._open: tuple[http.client.HTTPConnection, BinaryIO] | None = None

    def get(self, path: str, headers: Mapping[str, str], *, timeout: float) -> Answer:
        """Raises Ended, Unusual, or OSError where there is no connection or `timeout` seconds of silence."""
        reused = self._open is not None
        try:
            return self._ask(path, headers, timeout)
        except OSError as error:
            self.close()
            if reused and not isinstance(error, TimeoutError):
                raise Ended from error
            raise
        except (ValueError, http.client.HTTPException) as error:
            self.close()
            raise Unusual(str(error)) from error

    def close(self) -> None:
        if self._open is not None:
            connection, reading = self._open
            reading.close()
            connection.close()
            self._open = None

    def _ask(self, path: str, headers: Mapping[str, str], timeout: float) -> Answer:
        connection, reading = self._open or self._connect(timeout)
        asked = {"Host": self._host, "Accept": "*/*", "Accept-Encoding": "identity", **headers}
        lines = [f"GET {self._prefix}{path} HTTP/1.1", *(f"{name}: {value}" for name, value in asked.items())]
        if not all(line.isprintable() for line in lines):
            raise ValueError("the path or a header holds more than one line")
        connection.sock.settimeout(timeout)
        connection.sock.sendall("\r\n".join([*lines, "", ""]).encode("latin-1"))
        status, told = _head(reading)
        answer = Answer(status, told, _body(reading, told))
        if told.get("connection", "").lower() == "close":
            self.close()
        return answer

    def _connect(self, timeout: float) -> tuple[http.client.HTTPConnection, BinaryIO]:
        connection = (
            http.client.HTTPSConnection(self._host, timeout=timeout, context=_trust())
            if self._secure
            else http.client.HTTPConnection(self._host, timeout=timeout)
        )
        connection.connect()
        self._open = connection, connection.sock.makefile("rb")
        return self._open


def _head(reading: BinaryIO) -> tuple[int, dict[str, str]]:
    """Status and headers."""
    first = reading.readline(_LONGEST_LINE)
    if not first:
        raise ConnectionResetError("closed")
    version, status, *_ = (*first.split(None, 2), b"", b"")
    if version != b"HTTP/1.1" or not (status.isdigit() and len(status) == 3 and status >= b"200"):
        raise ValueError("no answer of HTTP/1.1")
    headers: dict[str, str] = {}
    for _ in range(_MOST_HEADERS):
        line = reading.readline(_LONGEST_LINE)
        if line == b"\r\n":
            return int(status), headers
        name, colon, value = line.decode("latin-1").partition(":")
        if not colon or not line.endswith(b"\r\n") or name.strip() != name:
            raise ValueError("a header is malformed or too long")
        headers[name.lower()] = value.strip()
    raise ValueError("too many headers")


def _body(reading: BinaryIO, headers: Mapping[str, str]) -> bytes:
    coding, length = headers.get("transfer-encoding", ""), headers.get("content-length", "")
    if headers.get("content-encoding", "identity") != "identity" or (coding and length):
        raise ValueError("an encoding that was not asked for")
    if coding.lower() == "chunked":
        return _chunks(reading)
    if coding or not (length.isascii() and length.isdigit() and len(length) < 10):
        raise ValueError("its length is unknown")
    return _exactly(reading, int(length))


def _chunks(reading: BinaryIO) -> bytes:
    body = bytearray()
    while size := int(reading.readline(_LONGEST_LINE).partition(b";")[0], 16):
        body += _exactly(reading, size, already=len(body))
        if reading.readline(_LONGEST_LINE) != b"\r\n":
            raise ValueError("a chunk has another length than it says")
    if reading.readline(_LONGEST_LINE) != b"\r\n":
        raise ValueError("headers behind the body")
    return bytes(body)


def _exactly(reading: BinaryIO, size: int, *, already: int = 0) -> bytes:
    if not 0 <= size <= _MOST - already:
        raise ValueError("the body is too long")
    body = reading.read(size)
    if len(body) != size:
        raise ConnectionResetError("the body ended early")
    return body


@cache
def _trust() -> ssl.SSLContext:
    return ssl.create_default_context()
