"""Where the members of a zip archive lie, bounded before the directory is read.

`zipfile` reads the central directory; the position of a member's bytes is taken from its local header,
whose extra field may differ in length (torch pads there so that storages are aligned).
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from dataclasses import dataclass

from ftsec_audit.errors import BudgetExceeded, FormatError, Unsupported
from ftsec_audit.files import ArtifactFile, ByteReader, MemoryBytes
from ftsec_audit.formats.zip_archive import DIRECTORY_BYTES

_END = b"PK\x05\x06"
_END_SIZE = 22
_LONGEST_COMMENT = 0xFFFF
_END64_LOCATOR = b"PK\x06\x07"
_END64_LOCATOR_SIZE = 20
_END64_SIZE = 56
_LOCAL = b"PK\x03\x04"
_LOCAL_SIZE = 30


@dataclass(frozen=True, kw_only=True)
class ZipLimits:
    """Bounds for one archive; a checkpoint shard has a member per storage."""

    members: int = 100_000
    directory_bytes: int = DIRECTORY_BYTES
    inflated_bytes: int = 1 << 30
    """The largest compressed member that is unpacked, into memory."""


@dataclass(frozen=True, kw_only=True)
class ZipMember:
    """A member of an archive and where its bytes lie in the file."""

    name: str
    size: int
    """Unpacked."""
    offset: int
    """Of the stored or compressed bytes, absolute."""
    packed: int
    """Length of the stored or compressed bytes."""
    stored: bool
    archive: ArtifactFile

    def read(self, reader: ByteReader) -> bytes:
        """The unpacked bytes; the caller has checked `size`. Raises FormatError."""
        packed = reader.read_at(self.offset, self.packed)
        if self.stored:
            return packed
        try:
            data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, self.size + 1)
        except zlib.error as error:
            raise FormatError(f"member {self.name!r} cannot be inflated", where=self.archive.path) from error
        if len(data) != self.size:
            message = f"member {self.name!r} does not inflate to the {self.size:,} bytes it claims"
            raise FormatError(message, where=self.archive.path)
        return data

    def as_file(self) -> ArtifactFile:
        """The unpacked member as a file of its own."""
        name = f"{self.archive.path}!{self.name}"
        return ArtifactFile(name, self.size, lambda _: MemoryBytes(self.read(self.archive.open())))


def members(file: ArtifactFile, *, limits: ZipLimits = ZipLimits()) -> dict[str, ZipMember]:
    """The members by name, in directory order.

    Raises FormatError (not a zip, a name twice, bytes outside the file), BudgetExceeded, Unsupported.
    """
    reader = file.open()
    _check_directory(file, reader, limits)
    try:
        with zipfile.ZipFile(io.BufferedReader(_Stream(reader))) as archive:
            listed = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OverflowError, struct.error) as error:
        raise FormatError(f"the zip directory cannot be read: {error}", where=file.path) from error
    if len(listed) > limits.members:
        raise BudgetExceeded(f"{len(listed):,} members, the limit is {limits.members:,}", where=file.path)
    found: dict[str, ZipMember] = {}
    for entry in listed:
        if entry.filename in found:
            raise FormatError(f"two members are called {entry.filename!r}", where=file.path)
        found[entry.filename] = _member(file, reader, entry, limits)
    return found


def _member(file: ArtifactFile, reader: ByteReader, entry: zipfile.ZipInfo, limits: ZipLimits) -> ZipMember:
    stored = entry.compress_type == zipfile.ZIP_STORED
    if not stored and entry.compress_type != zipfile.ZIP_DEFLATED:
        raise Unsupported(
            f"member {entry.filename!r} uses compression {entry.compress_type}", where=file.path
        )
    if not stored and entry.file_size > limits.inflated_bytes:
        message = f"member {entry.filename!r} would inflate to {entry.file_size:,} bytes"
        raise BudgetExceeded(f"{message}, the limit is {limits.inflated_bytes:,}", where=file.path)
    header = reader.read_at(entry.header_offset, _LOCAL_SIZE) if entry.header_offset >= 0 else b""
    if len(header) < _LOCAL_SIZE or not header.startswith(_LOCAL):
        raise FormatError(f"member {entry.filename!r} has no local header", where=file.path)
    name_length, extra_length = struct.unpack_from("<HH", header, 26)
    offset = entry.header_offset + _LOCAL_SIZE + name_length + extra_length
    if offset + entry.compress_size > file.size or (stored and entry.compress_size != entry.file_size):
        raise FormatError(f"member {entry.filename!r} reaches beyond the file", where=file.path)
    return ZipMember(
        name=entry.filename,
        size=entry.file_size,
        offset=offset,
        packed=entry.compress_size,
        stored=stored,
        archive=file,
    )


def _check_directory(file: ArtifactFile, reader: ByteReader, limits: ZipLimits) -> None:
    """Refuse a central directory too large to be listed; `zipfile` itself has no bound."""
    start = max(0, file.size - _END_SIZE - _LONGEST_COMMENT)
    tail = reader.read_at(start, file.size - start)
    found = tail.rfind(_END)
    if found < 0 or len(tail) - found < _END_SIZE:
        raise FormatError("the zip directory is missing", where=file.path, hint="truncated?")
    count, size = struct.unpack_from("<HI", tail, found + 10)
    locator = tail[max(0, found - _END64_LOCATOR_SIZE) : found]
    if locator.startswith(_END64_LOCATOR):
        record = reader.read_at(int.from_bytes(locator[8:16], "little"), _END64_SIZE)
        if len(record) == _END64_SIZE:
            count, size = struct.unpack_from("<QQ", record, 32)
    if count > limits.members or size > limits.directory_bytes:
        raise BudgetExceeded(
            f"a zip directory of {count:,} members and {size:,} bytes", where=file.path, hint="refused unread"
        )


class _Stream(io.RawIOBase):
    """A ByteReader as the file object that `zipfile` wants."""

    def __init__(self, reader: ByteReader) -> None:
        self._reader = reader
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._reader.size}[whence]
        if origin + offset < 0:
            raise ValueError("a position before the start of the file")
        self._position = origin + offset
        return self._position

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        count = self._reader.readinto_at(self._position, memoryview(buffer))
        self._position += count
        return count
