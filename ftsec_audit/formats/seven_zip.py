"""7z archives made with one coder per folder (Copy, LZMA, LZMA2, Deflate, BZip2), which is what 7z writes.

Layout: DOC/7zFormat.txt of the LZMA SDK. Filters in front of a coder (BCJ, Delta, AES) are not undone:
such a folder is refused. A pickle in a 7z archive is how two malicious models once passed a scanner.
"""

from __future__ import annotations

import lzma
from collections.abc import Iterator
from dataclasses import dataclass, field

from ftsec_audit.errors import BudgetExceeded, FormatError, Unsupported
from ftsec_audit.files import ByteReader
from ftsec_audit.formats.unpacking import Unpacked, UnpackLimits, unpack
from ftsec_audit.formats.views import Slice, Spool

_HEADER_LIMIT = 8 << 20
_COPY, _LZMA, _LZMA2, _DEFLATE, _BZIP2 = b"\0", b"\3\1\1", b"\x21", b"\4\1\x08", b"\4\2\2"


@dataclass
class _Folder:
    method: bytes
    properties: bytes
    packed: tuple[int, int] = (0, 0)  # offset, length
    sizes: list[int] = field(default_factory=list)  # of its files


class _Header:
    """Reads the byte codes of a header."""

    def __init__(self, data: bytes, where: str) -> None:
        self.data = data
        self.at = 0
        self.where = where

    def take(self, count: int) -> bytes:
        if count > len(self.data) - self.at:
            raise FormatError("the 7z header ends early", where=self.where)
        self.at += count
        return self.data[self.at - count : self.at]

    def byte(self) -> int:
        return self.take(1)[0]

    def number(self) -> int:
        first, mask, value = self.byte(), 0x80, 0
        for position in range(8):
            if not first & mask:
                return value | (first & (mask - 1)) << (8 * position)
            value |= self.byte() << (8 * position)
            mask >>= 1
        return value

    def count(self) -> int:
        """A number of things, each of which takes at least one bit of header."""
        number = self.number()
        if number > 8 * len(self.data):
            raise FormatError(f"the 7z header claims {number:,} items", where=self.where)
        return number

    def expect(self, code: int) -> None:
        if (found := self.byte()) != code:
            raise FormatError(f"code {found} where {code} belongs in the 7z header", where=self.where)

    def bits(self, count: int) -> list[bool]:
        raw = self.take(-(-count // 8))
        return [bool(raw[i // 8] >> (7 - i % 8) & 1) for i in range(count)]

    def skip_digests(self, count: int) -> None:
        defined = [True] * count if self.byte() else self.bits(count)
        self.take(4 * sum(defined))


def lzma1_filter(properties: bytes) -> list[dict[str, object]]:
    """The raw-decoder filter of five LZMA property bytes; raises FormatError."""
    if len(properties) < 5 or properties[0] >= 225:
        raise FormatError("bad LZMA properties")
    rest, lc = divmod(properties[0], 9)
    pb, lp = divmod(rest, 5)
    size = min(int.from_bytes(properties[1:5], "little"), 128 << 20)
    return [{"id": lzma.FILTER_LZMA1, "lc": lc, "lp": lp, "pb": pb, "dict_size": max(size, 4096)}]


def members(
    reader: ByteReader, budget: int, limits: UnpackLimits, where: str = ""
) -> Iterator[tuple[str, Unpacked]]:
    """Every file with its content; raises FormatError, BudgetExceeded, SourceError."""
    start = reader.read_at(0, 32)
    offset, size = (int.from_bytes(start[at : at + 8], "little") for at in (12, 20))
    if len(start) < 32 or offset + size > reader.size - 32:
        raise FormatError("the 7z header lies outside the file", where=where)
    if size == 0:
        return
    header = _plain_header(reader, 32 + offset, size, limits, where)
    folders, names = _archive(header)
    position = iter(names)
    for folder in folders:
        unpacked = _unpack(reader, folder, budget, limits, where)
        budget -= unpacked.reader.size
        yield from _split(folder, unpacked, position)
        if unpacked.bomb or budget < 0:
            return


def _split(folder: _Folder, unpacked: Unpacked, names: Iterator[str]) -> Iterator[tuple[str, Unpacked]]:
    start = 0
    for size in folder.sizes:
        name = next(names, "unnamed")
        piece = Spool()
        for at in range(start, min(start + size, unpacked.reader.size), 1 << 20):
            piece.write(unpacked.reader.read_at(at, min(1 << 20, start + size - at)))
        cut = unpacked.cut or ("" if start + size <= unpacked.reader.size else "a file that ends early")
        yield name, Unpacked(reader=piece, consumed=size, damage=unpacked.damage, bomb=unpacked.bomb, cut=cut)
        start += size


def _plain_header(reader: ByteReader, offset: int, size: int, limits: UnpackLimits, where: str) -> _Header:
    """The header, unpacked as often as it is packed."""
    for _ in range(4):
        if size > _HEADER_LIMIT:
            raise BudgetExceeded(f"a 7z header of {size:,} bytes", where=where)
        header = _Header(reader.read_at(offset, size), where)
        code = header.byte()
        if code == 1:
            return header
        if code != 0x17:
            raise FormatError(f"a 7z header of kind {code}", where=where)
        folders = _streams(header)
        if len(folders) != 1:
            raise FormatError("a packed 7z header in several folders", where=where)
        found = _unpack(reader, folders[0], _HEADER_LIMIT, limits, where)
        if found.damage or found.bomb or found.cut:
            raise FormatError(f"the packed 7z header: {found.damage or found.bomb or found.cut}", where=where)
        data = found.reader.read_at(0, min(found.reader.size, sum(folders[0].sizes)))
        return _plain_or_again(data, where)
    raise FormatError("a 7z header packed again and again", where=where)


def _plain_or_again(data: bytes, where: str) -> _Header:
    header = _Header(data, where)
    if header.byte() != 1:
        raise FormatError("a 7z header packed twice", where=where)
    return header


def _archive(header: _Header) -> tuple[list[_Folder], list[str]]:
    folders: list[_Folder] = []
    while (code := header.byte()) != 0:
        if code == 2:  # archive properties
            while header.byte() != 0:
                header.take(header.number())
        elif code == 4:
            folders = _streams(header)
        elif code == 5:
            return folders, _files(header)
        else:
            raise FormatError(f"code {code} in the 7z header", where=header.where)
    return folders, []


def _streams(header: _Header) -> list[_Folder]:
    folders: list[_Folder] = []
    packed: list[tuple[int, int]] = []
    while (code := header.byte()) != 0:
        if code == 6:
            packed = _pack_sizes(header)
        elif code == 7:
            folders = _folders(header)
        elif code == 8:
            _substreams(header, folders)
        else:
            raise FormatError(f"code {code} in the 7z streams", where=header.where)
    if len(packed) != len(folders):
        raise Unsupported("7z folders of several packed streams", where=header.where)
    for folder, place in zip(folders, packed, strict=True):
        folder.packed = place
    return folders


def _pack_sizes(header: _Header) -> list[tuple[int, int]]:
    position, count = 32 + header.number(), header.count()
    sizes: list[int] = []
    while (code := header.byte()) != 0:
        if code == 9:
            sizes = [header.number() for _ in range(count)]
        elif code == 10:
            header.skip_digests(count)
        else:
            raise FormatError(f"code {code} in the 7z pack sizes", where=header.where)
    places = []
    for size in sizes:
        places.append((position, size))
        position += size
    return places


def _folders(header: _Header) -> list[_Folder]:
    header.expect(11)
    count = header.count()
    header.expect(0)  # not external
    folders = [_folder(header) for _ in range(count)]
    header.expect(12)
    for folder in folders:
        folder.sizes = [header.number()]
    while (code := header.byte()) != 0:
        if code != 10:
            raise FormatError(f"code {code} in the 7z folders", where=header.where)
        header.skip_digests(count)
    return folders


def _folder(header: _Header) -> _Folder:
    if header.number() != 1:
        raise Unsupported("7z folders with filters or encryption", where=header.where)
    flags = header.byte()
    method = header.take(flags & 0x0F)
    if flags & 0x10:
        raise Unsupported("7z coders with several streams", where=header.where)
    properties = header.take(header.number()) if flags & 0x20 else b""
    return _Folder(method, properties)


def _substreams(header: _Header, folders: list[_Folder]) -> None:
    counts = [1] * len(folders)
    code = header.byte()
    if code == 13:
        counts = [header.count() for _ in folders]
        code = header.byte()
    for folder, count in zip(folders, counts, strict=True):
        total = sum(folder.sizes)
        sizes = [header.number() for _ in range(count - 1)] if code == 9 else []
        folder.sizes = [*sizes, max(0, total - sum(sizes))] if count else []
    if code == 9:
        code = header.byte()
    while code != 0:
        if code != 10:
            raise FormatError(f"code {code} in the 7z substreams", where=header.where)
        # Digests are given for the files whose folder has none of its own; one byte says whether all are.
        start = header.at
        header.skip_digests(sum(counts))
        if header.at - start > len(header.data):
            raise FormatError("7z digests", where=header.where)
        code = header.byte()


def _files(header: _Header) -> list[str]:
    """Names of the files that have content, in order."""
    count = header.count()
    names: list[str] = []
    empty = [False] * count
    while (code := header.number()) != 0:
        part = _Header(header.take(header.number()), header.where)
        if code == 14:
            empty = part.bits(count)
        elif code == 17 and part.byte() == 0:
            text = part.take(len(part.data) - 1).decode("utf-16-le", "replace")
            names = text.split("\0")[:count]
    return [name for name, without in zip(names, empty, strict=False) if not without]


def _unpack(reader: ByteReader, folder: _Folder, budget: int, limits: UnpackLimits, where: str) -> Unpacked:
    packed = Slice(reader, *folder.packed)
    if folder.method == _COPY:
        out = Spool()
        for at in range(0, min(packed.size, budget), 1 << 20):
            out.write(packed.read_at(at, 1 << 20))
        return Unpacked(reader=out, consumed=packed.size)
    if folder.method == _LZMA:
        filters = lzma1_filter(folder.properties)
        found = unpack(packed, "lzma", budget=budget, limits=limits, filters=filters)
        # A raw LZMA stream has no end mark: running out of input at the stated size is its end.
        done = found.reader.size >= sum(folder.sizes)
        return Unpacked(
            reader=found.reader,
            consumed=found.consumed,
            bomb=found.bomb,
            cut=found.cut,
            damage="" if done else found.damage,
        )
    if folder.method == _LZMA2:
        bits = folder.properties[0] if folder.properties else 40
        size = min((2 | bits & 1) << (bits // 2 + 11), 128 << 20)
        filters = [{"id": lzma.FILTER_LZMA2, "dict_size": size}]
        return unpack(packed, "lzma", budget=budget, limits=limits, filters=filters)
    kinds = {_DEFLATE: "deflate", _BZIP2: "bzip2"}
    if folder.method not in kinds:
        raise Unsupported(f"7z method {folder.method.hex()}", where=where)
    return unpack(packed, kinds[folder.method], budget=budget, limits=limits)
