"""A part of a remote file, asked for again from where it broke off until it is there."""

from __future__ import annotations

from collections.abc import Callable

from ftsec_audit.sources.transfer import Attempts

Sink = Callable[[bytes], object]

_HEADWAY = 64 << 10
"""Bytes an attempt must bring for the failures before it to be forgiven: no server drips forever."""


class Position:
    """How far a fetch has come, whatever breaks in between."""

    def __init__(self, start: int, stop: int, sink: Sink) -> None:
        self.at = start
        self.stop = stop
        self._sink = sink

    def take(self, chunk: bytes) -> None:
        piece = chunk[: self.stop - self.at]
        if piece:
            self._sink(piece)
            self.at += len(piece)


def fetch(
    position: Position,
    stream: Callable[[Position], None],
    attempts: Attempts,
    errors: tuple[type[Exception], ...],
) -> None:
    """Call `stream` until the position has reached its end.

    It makes one request, which may end early without an error; of what it raises, `errors` are worth
    another attempt, or are raised in the end: ConnectionError where it raised none.
    """
    while position.at < position.stop:
        before = position.at
        failure: Exception = ConnectionError("the answer ended early")
        try:
            stream(position)
        except errors as error:
            failure = error
        if position.at - before >= _HEADWAY:
            attempts.progressed()
        if position.at < position.stop:
            attempts.failed(failure)
