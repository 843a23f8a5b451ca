"""The server: two listeners, the repositories they serve, and what goes wrong on request."""

from __future__ import annotations

import sys
import threading
from collections.abc import Mapping
from http.server import ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Self

from hub_server.faults import Fault
from hub_server.handlers import Handler, HubHandler, StorageHandler
from hub_server.log import RequestLog
from hub_server.repository import Content, Repository


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128
    hub: HubServer

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up early is no error; anything else is shown."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class HubServer:
    """A Hub on this machine; use it as a context manager, or call `start` and `stop`.

    `tokens` are the valid ones and may read everything; without any valid token, private repositories are
    hidden and gated ones are locked.
    """

    def __init__(self, *, tokens: tuple[str, ...] = ("hf_valid",)) -> None:
        self.tokens = tokens
        self.repositories: dict[str, Repository] = {}
        self.renamed: dict[str, str] = {}
        self.blobs: dict[str, Content] = {}
        self.faults: list[Fault] = []
        self.log = RequestLog()
        self.stopped = False
        self.models_per_page = 1000
        self._listeners = [self._listen(HubHandler), self._listen(StorageHandler)]
        self.endpoint, self.storage_endpoint = (
            f"http://127.0.0.1:{listener.server_address[1]}" for listener in self._listeners
        )

    def add(
        self,
        repository: str,
        files: Mapping[str, bytes | Path],
        *,
        private: bool = False,
        gated: bool = False,
    ) -> Repository:
        """A new repository with one commit on `main`."""
        added = Repository(repository, private=private, gated=gated)
        self.repositories[repository] = added
        added.commit(files)
        return added

    def rename(self, old: str, new: str) -> None:
        """Move a repository; its old address redirects from now on."""
        repository = self.repositories.pop(old)
        repository.id = new
        self.repositories[new] = repository
        self.renamed[old] = new

    def start(self) -> Self:
        for listener in self._listeners:
            threading.Thread(target=listener.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def stop(self) -> None:
        """From now on new connections are refused, and open ones are dropped at their next request."""
        self.stopped = True
        for listener in self._listeners:
            listener.shutdown()
            listener.server_close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _listen(self, handler: type[Handler]) -> _Listener:
        listener = _Listener(("127.0.0.1", 0), handler)
        listener.hub = self
        return listener
