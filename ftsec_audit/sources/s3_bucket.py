"""A bucket of an object store that speaks S3: what it lists, and parts of its objects.

Spoken to through the genuine client (extra `s3`). Credentials, region and endpoint are those of the AWS
variables and files of this machine. Every read names the ETag that was listed: an object that was replaced
since is an error, never bytes of another one.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any
from urllib.parse import urlsplit

from ftsec_audit.contracts import Progress
from ftsec_audit.errors import SourceError
from ftsec_audit.sources import resumed
from ftsec_audit.sources.resumed import Position, Sink
from ftsec_audit.sources.s3_errors import Answer, RequestFailed, asking, explained
from ftsec_audit.sources.transfer import Attempts, Backoff, Transfer
from ftsec_audit.version import VERSION

_CHUNK = 256 << 10
_CONTENT_RANGE = re.compile(r"^bytes (\d+)-\d+/(\d+)$")
_MOST_PAGES = 1000
_CREATION = threading.Lock()
"""A session makes clients for one thread at a time; clients themselves may be shared."""


@dataclass(frozen=True, kw_only=True)
class StoredObject:
    """As the bucket lists it."""

    key: str
    """Hostile."""
    size: int
    etag: str
    """Names the content of this key; for many stores an MD5, so no proof against its writer."""
    modified: str
    """When it was written, by the clock of the store."""


@dataclass(frozen=True, kw_only=True)
class Bucket:
    """One bucket at one endpoint, and what asking it costs."""

    name: str
    client: Any = field(repr=False)
    progress: Progress = field(default_factory=Progress)
    transfer: Transfer = field(default_factory=Transfer)
    backoff: Backoff = field(default_factory=Backoff)

    @classmethod
    def from_environment(
        cls,
        name: str,
        *,
        progress: Progress | None = None,
        transfer: Transfer | None = None,
        timeout: float = 20.0,
    ) -> Bucket:
        """The AWS variables as they are now. `timeout` is in seconds without an answer, or between two
        pieces of one. Raises SourceError."""
        transfer = transfer or Transfer()
        return cls(
            name=name,
            client=_client(transfer, timeout, where=f"s3://{name}"),
            progress=progress or Progress(),
            transfer=transfer,
            backoff=Backoff.from_environment(),
        )

    @property
    def endpoint(self) -> str:
        """Scheme and host, without the user and password that the address may carry."""
        parts = urlsplit(str(self.client.meta.endpoint_url))
        return f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}"

    def listed(self, prefix: str, *, most: int) -> Iterator[StoredObject]:
        """The objects whose keys begin with `prefix`, in order of their keys, the first `most` of them."""
        where, token, count = f"s3://{self.name}/{prefix}", "", 0
        for _ in range(_MOST_PAGES):
            request = {"Bucket": self.name, "Prefix": prefix, "MaxKeys": min(most - count, 1000)}
            request |= {"ContinuationToken": token} if token else {}
            page = self._ask(partial(self.client.list_objects_v2, **request), where)
            if "IsTruncated" not in page:  # some other page that happens to be XML
                raise self._strange(where)
            for entry in page.get("Contents", ()):
                yield self._of(entry, prefix, where)
                count += 1
            if not page["IsTruncated"] or count >= most:
                return
            if not (token := str(page.get("NextContinuationToken", ""))):
                raise self._strange(where)  # what follows would go unseen
        raise SourceError("its list does not come to an end", where=where)

    def _of(self, entry: Mapping[str, Any], prefix: str, where: str) -> StoredObject:
        key, size, etag = str(entry.get("Key", "")), entry.get("Size"), str(entry.get("ETag", ""))
        if not key.startswith(prefix) or not isinstance(size, int) or size < 0 or not etag:
            raise self._strange(where)
        return StoredObject(key=key, size=size, etag=etag, modified=str(entry.get("LastModified", "")))

    def _strange(self, where: str) -> SourceError:
        return SourceError(f"{self.endpoint} does not list objects as S3 does", where=where)

    def _ask(self, question: Callable[[], Mapping[str, Any]], where: str) -> Mapping[str, Any]:
        attempts = Attempts(self.backoff, self.transfer)
        with explained(where, self.endpoint):
            while True:
                try:
                    with asking(self.endpoint):
                        return question()
                except RequestFailed as error:
                    attempts.failed(error)


class ObjectRanges:
    """Any part of one object, as long as it is the one that was listed."""

    def __init__(self, bucket: Bucket, listed: StoredObject) -> None:
        self.size = listed.size
        self.where = f"s3://{bucket.name}/{listed.key}"
        self._bucket, self._listed = bucket, listed
        self._written: tuple[str, str] | None = None
        """Time and version of the object that was read first."""

    def fetch(self, start: int, stop: int, sink: Sink) -> None:
        """Hand bytes `start` to `stop` (exclusive) to `sink`, in order, each once; raises SourceError."""
        bucket = self._bucket
        attempts = Attempts(bucket.backoff, bucket.transfer)
        with explained(self.where, bucket.endpoint):
            resumed.fetch(Position(start, stop, sink), self._stream, attempts, (RequestFailed,))

    def _stream(self, position: Position) -> None:
        """One request from `position` on."""
        bucket, listed = self._bucket, self._listed
        with asking(bucket.endpoint):
            answer = bucket.client.get_object(
                Bucket=bucket.name,
                Key=listed.key,
                IfMatch=listed.etag,
                Range=f"bytes={position.at}-{position.stop - 1}",
            )
            with closing(answer["Body"]) as body:
                self._check(answer, position.at)
                while position.at < position.stop and (chunk := body.read(_CHUNK)):
                    bucket.transfer.add(requests=0, bytes=len(chunk))
                    position.take(chunk)

    def _check(self, answer: Mapping[str, Any], start: int) -> None:
        """Whether these are the bytes that were asked for; not every store obeys every header."""
        match = _CONTENT_RANGE.match(str(answer.get("ContentRange", "")))
        if match is None and start > 0:
            raise SourceError("the store cannot send a part of an object", where=self.where)
        if match is not None and (int(match[1]), int(match[2])) != (start, self.size):
            raise SourceError("the store sent another part than was asked for", where=self.where)
        written = str(answer.get("LastModified", "")), str(answer.get("VersionId", ""))
        self._written = self._written or written
        if answer.get("ETag") != self._listed.etag or written != self._written:
            raise RequestFailed("PreconditionFailed", response=Answer(412))


def _client(transfer: Transfer, timeout: float, *, where: str) -> Any:
    """A client whose every answer is counted; retries are this program's own. Raises SourceError."""
    try:
        import boto3  # noqa: F401
        from botocore.config import Config
    except ImportError as error:
        raise SourceError(
            "the S3 client is not installed", where=where, hint="pip install 'ftsec-audit[s3]'"
        ) from error
    config = Config(
        connect_timeout=timeout,
        read_timeout=timeout,
        retries={"total_max_attempts": 1, "mode": "standard"},
        # Of a part of an object there is no checksum; stores that send one send that of the whole.
        response_checksum_validation="when_required",
        user_agent_extra=f"ftsec-audit/{VERSION}",
    )

    def count(response_dict: Mapping[str, Any] | None, **_: Any) -> None:
        if response_dict is not None:
            body = response_dict.get("body")  # a stream, when it is that of an object
            transfer.add(requests=1, bytes=len(body) if isinstance(body, bytes) else 0)

    variables = frozenset(item for item in os.environ.items() if item[0].startswith("AWS_"))
    with explained(where, "the endpoint"), asking("the endpoint"), _CREATION:
        client = _session(os.getpid(), variables).client("s3", config=config)
    client.meta.events.register("response-received.s3", count)
    return client


@lru_cache(maxsize=1)
def _session(process: int, variables: frozenset[tuple[str, str]]) -> Any:  # noqa: ARG001
    """Of this process, for as long as the variables do not change: making one takes ten times as long as
    making a client."""
    import boto3

    region = None if os.environ.get("AWS_DEFAULT_REGION") else os.environ.get("AWS_REGION")
    return boto3.session.Session(region_name=region or None)
