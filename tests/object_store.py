"""A genuine S3 server on this machine (moto), with a log of what it is asked and trouble to order."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from hub_server import Fault

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "secret-of-the-test"}

_NUMBERS = itertools.count()  # what one server holds, every server of the process does


@dataclass
class StoreFault(Fault):
    """Answers of `status` carry this code and, as a message, what a bucket's owner may have put there."""

    code: str = "InternalError"
    ignore_match: bool = False
    """Send the object, whichever was asked for."""

    page: bytes = b""
    """Sent in place of an error of S3's own kind."""

    def body(self) -> bytes:
        if self.page:
            return self.page
        return f"<Error><Code>{self.code}</Code><Message>so says the store</Message></Error>".encode()


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    query: str
    range: str
    if_match: str


class ObjectStore:
    """One server; use it as a context manager. `renew` makes an empty bucket the one that is meant."""

    def __init__(self) -> None:
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
        from werkzeug.serving import WSGIRequestHandler, make_server

        class Quiet(WSGIRequestHandler):
            def log(self, *_: object) -> None: ...

        self.bucket = ""
        self.faults: list[StoreFault] = []
        self.log: list[Request] = []
        self._store = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True, request_handler=Quiet)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"

    def at(self, prefix: str) -> str:
        """The reference that means this place."""
        return f"s3://{self.bucket}/{prefix}"

    def put(self, files: Mapping[str, bytes]) -> None:
        for key, content in files.items():
            self.client.put_object(Bucket=self.bucket, Key=key, Body=content)

    def fill(self, keys: Iterable[str]) -> None:
        """Empty objects, put there without a request for each."""
        from moto.core import DEFAULT_ACCOUNT_ID
        from moto.s3.models import s3_backends

        for key in keys:
            s3_backends[DEFAULT_ACCOUNT_ID]["aws"].put_object(self.bucket, key, b"")

    def upload(self, folder: Path, prefix: str) -> None:
        """Each file of a folder, below a prefix."""
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                self.put({f"{prefix}/{path.relative_to(folder).as_posix()}": path.read_bytes()})

    def reads(self) -> list[Request]:
        """The requests for content, without those for lists."""
        return [request for request in self.log if request.range]

    def __enter__(self) -> Self:
        import boto3

        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        self.client = boto3.session.Session().client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id="owner",
            aws_secret_access_key="owner",
        )
        self.renew()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def renew(self) -> None:
        """No faults, nothing logged, and a bucket that holds nothing."""
        self.bucket = f"models-{next(_NUMBERS)}"
        self.client.create_bucket(Bucket=self.bucket)
        self.faults.clear()
        self.log.clear()

    def _answer(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        is_owner = "Credential=owner/" in environ.get("HTTP_AUTHORIZATION", "")
        fault = None
        if not is_owner:
            asked = (environ.get(f"HTTP_{name}", "") for name in ("RANGE", "IF_MATCH"))
            self.log.append(Request(method, path, environ["QUERY_STRING"], *asked))
            fault = next((one for one in self.faults if one.hits(method, "hub", path)), None)
        if fault is None:
            return self._store(environ, start_response)
        time.sleep(fault.delay)
        if fault.status:
            start_response(
                f"{fault.status} So", [("Content-Type", "application/xml"), *fault.headers.items()]
            )
            return [fault.body()]
        if fault.ignore_range:
            del environ["HTTP_RANGE"]
        if fault.ignore_match:
            del environ["HTTP_IF_MATCH"]
        body = self._store(environ, start_response)
        return body if fault.cut_after is None else _cut(body, fault.cut_after)


def _cut(body: Iterable[bytes], after: int) -> Iterator[bytes]:
    yield b"".join(body)[:after]
    raise ConnectionAbortedError("as ordered")
