"""The truth of a batch: one immutable document per scan, by key; failures beside them, by attempt.

    STORE/3f/3f2c….json              the report of key 3f2c…
    STORE/3f/3f2c….failed-1.json     an attempt that gave no report, and why

A document is never changed. It is there whole or not at all, so a key is finished when its document
exists, whatever was killed in between; nothing else remembers progress.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice

from ftsec_audit.batch.folders import open_folder
from ftsec_audit.batch.record import Record
from ftsec_audit.errors import UsageError

_NAME = re.compile(r"[0-9a-f]{64}(?:\.failed-[1-9]\d{0,5})?", re.ASCII)


class Store:
    """Documents below a path or an fsspec URL."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._folder = open_folder(url)

    def has(self, key: str) -> bool:
        return self._folder.exists(_place(key))

    def get(self, name: str) -> Record | None:
        """The document of that name, or None when there is none; raises UsageError for a damaged one."""
        try:
            data = self._folder.read(_place(name))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UsageError(error.strerror or "cannot be read", where=f"{self.url}/{name}") from error
        try:
            return Record.parse(data)
        except UsageError as error:
            raise UsageError(error.what, where=f"{self.url}/{_place(name)}", hint=error.where) from error

    def put(self, record: Record) -> None:
        """Raises OSError when it could not be written; then nothing of it is there."""
        self._folder.write(_place(record.name), record.render())

    def discard(self, name: str) -> None:
        """Remove a damaged document."""
        self._folder.remove(_place(name))

    def failures(self, key: str) -> int:
        """How many attempts at `key` have failed; asks for one name after the other."""
        attempt = 0
        while self._folder.exists(_place(f"{key}.failed-{attempt + 1}")):
            attempt += 1
        return attempt

    def sample(self, most: int) -> Iterator[Record]:
        """A few of the documents that can be read, whichever come first."""
        for name in islice(self.names(), most):
            try:
                record = self.get(name)
            except UsageError:
                continue
            if record is not None:
                yield record

    def names(self) -> Iterator[str]:
        """All documents, in no particular order."""
        for path in self._folder.names():
            name = path.rpartition("/")[2].removesuffix(".json")
            if is_name(name) and path == _place(name):
                yield name


def is_name(text: str) -> bool:
    """Whether a document could have this name."""
    return _NAME.fullmatch(text) is not None


def _place(name: str) -> str:
    return f"{name[:2]}/{name}.json"
