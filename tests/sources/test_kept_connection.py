"""The reader of plain answers, against a socket that says exactly what a test wants it to."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from ftsec_audit.sources.kept_connection import Ended, KeptConnection, Unusual

OK = b"HTTP/1.1 200 OK\r\n"
PLAIN = OK + b"Content-Length: 2\r\n\r\n{}"


@dataclass
class Speaker:
    """Says the next of `answers` to each request, and nothing but an end where there is none."""

    answers: list[bytes] = field(default_factory=list)
    requests: list[bytes] = field(default_factory=list)
    connections: int = 0
    endpoint: str = ""

    def serve(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            self.connections += 1
            with connection:
                while (request := connection.recv(1 << 16)) and self.answers:
                    self.requests.append(request)
                    connection.sendall(self.answers.pop(0))


@pytest.fixture
def speaker() -> Iterator[Speaker]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        speaking = Speaker(endpoint=f"http://127.0.0.1:{listener.getsockname()[1]}/mirror")
        threading.Thread(target=speaking.serve, args=(listener,), daemon=True).start()
        yield speaking
        listener.shutdown(socket.SHUT_RDWR)


def ask(kept: KeptConnection, **headers: str) -> bytes:
    return kept.get("/x", headers, timeout=5.0).body


def test_one_connection_serves_many_requests(speaker: Speaker) -> None:
    chunked = OK + b"transfer-encoding: Chunked\r\n\r\n3;note\r\n[1,\r\n2\r\n2]\r\n0\r\n\r\n"
    speaker.answers += [PLAIN, chunked, OK + b"content-length: 0\r\n\r\n", PLAIN]
    kept = KeptConnection(speaker.endpoint)
    assert [ask(kept, Authorization="Bearer t") for _ in range(4)] == [b"{}", b"[1,2]", b"", b"{}"]
    assert speaker.connections == 1
    lines = speaker.requests[0].decode().split("\r\n")
    assert lines[0] == "GET /mirror/x HTTP/1.1"
    assert {f"Host: {speaker.endpoint[7:].partition('/')[0]}", "Authorization: Bearer t"} <= set(lines)


def test_status_and_headers_of_an_error_are_told(speaker: Speaker) -> None:
    speaker.answers.append(b"HTTP/1.1 429 Slow\r\nRetry-After: 7\r\nContent-Length: 1\r\n\r\n!")
    answer = KeptConnection(speaker.endpoint).get("/x", {}, timeout=5.0)
    assert (answer.status, answer.headers["retry-after"], answer.body) == (429, "7", b"!")


def test_a_connection_that_has_ended_is_told_apart_from_one_that_never_was(speaker: Speaker) -> None:
    kept = KeptConnection(speaker.endpoint)
    with pytest.raises(ConnectionError):  # closed at the first request
        ask(kept)
    speaker.answers.append(PLAIN)
    assert ask(kept) == b"{}"
    with pytest.raises(Ended):
        ask(kept)
    speaker.answers.append(PLAIN)
    assert ask(kept) == b"{}"


def test_an_announced_end_is_expected(speaker: Speaker) -> None:
    speaker.answers += [OK + b"Connection: close\r\nContent-Length: 2\r\n\r\n{}"]
    kept = KeptConnection(speaker.endpoint)
    assert ask(kept) == b"{}"
    assert kept._open is None


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 100 Continue\r\n\r\n" + PLAIN,
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.1\r\n\r\n",
        OK + b"\r\n{}",
        OK + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        OK + b"Content-Length: -2\r\n\r\n{}",
        OK + b"Content-Length: 99999999999\r\n\r\n{}",
        OK + b"Content-Length: 999999999\r\n\r\n{}",
        OK + b"Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}",
        OK + b"Content-Length : 2\r\n\r\n{}",
        OK + b"no colon\r\nContent-Length: 2\r\n\r\n{}",
        OK + b"X: " + b"y" * 20_000 + b"\r\n\r\n",
        OK + b"X: y\r\n" * 200 + b"\r\n",
        OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\nffffffff\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{}\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nTrailer: x\r\n\r\n",
    ],
    ids=range(19),
)
def test_what_leaves_a_doubt_is_refused_and_ends_the_connection(speaker: Speaker, answer: bytes) -> None:
    speaker.answers.append(answer)
    kept = KeptConnection(speaker.endpoint)
    with pytest.raises(Unusual):
        ask(kept)
    assert kept._open is None


@pytest.mark.parametrize("cut", [b"", OK, OK + b"Content-Length: 2\r\n\r\n{"], ids=range(3))
def test_an_answer_that_breaks_off_is_no_answer(cut: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def say() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1 << 16)
                connection.sendall(cut)

        threading.Thread(target=say, daemon=True).start()
        with pytest.raises((ConnectionError, Unusual)):
            ask(KeptConnection(f"http://127.0.0.1:{listener.getsockname()[1]}"))


def test_silence_is_not_waited_for_longer_than_asked(speaker: Speaker) -> None:
    speaker.answers.append(OK)
    with pytest.raises(TimeoutError):
        KeptConnection(speaker.endpoint).get("/x", {}, timeout=0.2)


@pytest.mark.parametrize("path", ["/x HTTP/1.1\r\nX: y", "/a b\n"])
def test_a_request_is_one_request(speaker: Speaker, path: str) -> None:
    kept = KeptConnection(speaker.endpoint)
    with pytest.raises(Unusual):
        kept.get(path, {}, timeout=5.0)
    with pytest.raises(Unusual):
        kept.get("/x", {"Authorization": "Bearer t\r\nX: y"}, timeout=5.0)
    assert speaker.requests == []
