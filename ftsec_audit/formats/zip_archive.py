"""ZIP archives as every reader might see them: central directory, local headers, and where the two differ.

Layout: APPNOTE.TXT 6.3.10 (PKWARE). Readers disagree on damaged or ambiguous archives (Python's zipfile
takes the last end record and checks names, flags and checksums; torch's reader does not), so every
disagreement is reported and every member is still given out. Nothing is unpacked here.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from ftsec_audit.files import ByteReader
from ftsec_audit.formats.views import Slice

END = b"PK\x05\x06"
LOCAL = b"PK\x03\x04"
_CENTRAL = b"PK\x01\x02"
_END64 = b"PK\x06\x06"
_LOCATOR64 = b"PK\x06\x07"
_END_SIZE = 22
_END64_SIZE = 56 + 20  # the ZIP64 end record and its locator
_TAIL = _END_SIZE + 0xFFFF
_MAX32 = 0xFFFFFFFF
_DESCRIPTOR = 1 << 3
_UTF8 = 1 << 11
_ENCRYPTED = 1 << 0
_KNOWN_FLAGS = 0b110 | _DESCRIPTOR | _UTF8  # compression options, descriptor, UTF-8 names
_SYMLINK = 0o120000
DIRECTORY_BYTES = 32 << 20
"""The longest directory that is followed, here and by `zip_members`: names alone can be gigabytes."""
METHODS = {0: "stored", 8: "deflate", 12: "bzip2", 14: "lzma"}


@dataclass(kw_only=True, slots=True)
class ZipMember:
    """One entry of a central directory."""

    name: str
    method: int
    flags: int
    crc: int
    packed: int
    size: int
    header: int
    """Offset of the local header."""
    data: int | None
    """Offset of the data, or None when there is no local header at `header`."""
    is_symlink: bool = False

    @property
    def is_folder(self) -> bool:
        return self.name.endswith("/")


@dataclass(frozen=True, slots=True)
class Oddity:
    """Something about a container that no ordinary writer produces."""

    code: str
    message: str
    offset: int | None = None
    member: str = ""


@dataclass(kw_only=True)
class ZipDirectory:
    members: list[ZipMember] = field(default_factory=list)
    oddities: list[Oddity] = field(default_factory=list)
    claimed: int = 0
    """Entries the end record claims."""
    cut: bool = False
    """Whether the directory goes on after the limit on members or bytes."""
    gaps: list[tuple[int, int]] = field(default_factory=list)
    """(offset, length) of bytes that belong to no member or record."""


def has_end_record(reader: ByteReader) -> bool:
    return bool(_end_records(reader))


def read_directory(reader: ByteReader, *, max_members: int) -> ZipDirectory | None:
    """The directory of an archive; None when there is no end record that leads to one."""
    ends = _end_records(reader)
    if not ends:
        return None
    directory = ZipDirectory()
    ends = _outermost(reader, ends, max_members)
    if len(ends) > 1:
        where = ", ".join(str(end.offset) for end in ends[:4])
        message = f"{len(ends)} directories (end records at {where})"
        directory.oddities.append(Oddity("two-end-records", message, ends[0].offset))
    for end in ends:
        _read_entries(reader, end, directory, max_members)
    _check_names(directory)
    _check_layout(reader, ends, directory)
    return directory


def _outermost(reader: ByteReader, ends: list[_End], max_members: int) -> list[_End]:
    """Without the end records of archives that are themselves stored members of the last directory."""
    last = ZipDirectory()
    _read_entries(reader, ends[-1], last, max_members)
    spans = [(m.data, m.data + m.packed) for m in last.members if m.data is not None and m.method == 0]
    return [end for end in ends if not any(start <= end.offset < stop for start, stop in spans)]


@dataclass(frozen=True, slots=True)
class _End:
    offset: int
    count: int
    size: int
    start: int  # of the central directory, as written
    shift: int  # how far everything lies behind where it is written to lie
    length: int  # of the record with its comment


def _end_records(reader: ByteReader) -> list[_End]:
    """Every end record in the last 64 KiB whose central directory is where it says, or just before it."""
    base = max(0, reader.size - _TAIL)
    tail = reader.read_at(base, reader.size - base)
    found: list[_End] = []
    at = tail.find(END)
    while at >= 0 and len(found) < 16:
        found.extend(_end_record(reader, base + at, tail[at : at + _END_SIZE]))
        at = tail.find(END, at + 1)
    return found


def _end_record(reader: ByteReader, offset: int, record: bytes) -> list[_End]:
    """What an end record leads to: readers look where it says (miniz) or right before it (zipfile)."""
    if len(record) < _END_SIZE:
        return []
    _, _, _, _, count, size, start, comment = struct.unpack("<4s4H2LH", record)
    locator = reader.read_at(max(0, offset - 20), 20)
    is_64 = locator.startswith(_LOCATOR64)
    if is_64 and (count == 0xFFFF or size == _MAX32 or start == _MAX32):
        at = struct.unpack("<8xQ4x", locator)[0]
        record64 = reader.read_at(at, 56) if at < reader.size else b""
        if record64.startswith(_END64) and len(record64) == 56:
            count, size, start = struct.unpack("<32xQQQ", record64)
    length = _END_SIZE + comment
    if count == 0:
        return [_End(offset, 0, size, start, 0, length)] if start + size <= offset else []
    before = offset - size - (_END64_SIZE if is_64 else 0)
    places = dict.fromkeys((start, before))
    return [
        _End(offset, count, size, start, place - start, length)
        for place in places
        if 0 <= place <= offset and reader.read_at(place, 4) == _CENTRAL
    ]


def _read_entries(reader: ByteReader, end: _End, directory: ZipDirectory, max_members: int) -> None:
    directory.claimed += end.count
    at, seen = end.start + end.shift, 0
    while at + 46 <= end.offset and seen < end.count:
        if len(directory.members) >= max_members or at - end.start - end.shift >= DIRECTORY_BYTES:
            directory.cut = True
            return
        fixed = reader.read_at(at, 46)
        if not fixed.startswith(_CENTRAL):
            break
        values = struct.unpack("<4s6H3L5H2L", fixed)
        flags, method, crc, packed, size = values[3], values[4], values[7], values[8], values[9]
        name_length, extra_length, comment_length, attributes, header = *values[10:13], *values[15:]
        names = reader.read_at(at + 46, name_length + extra_length)
        size, packed, header = _zip64(names[name_length:], size, packed, header)
        member = ZipMember(
            name=_name(names[:name_length], flags),
            method=method,
            flags=flags,
            crc=crc,
            packed=packed,
            size=size,
            header=header + end.shift,
            data=None,
            is_symlink=(attributes >> 16) & 0o170000 == _SYMLINK,
        )
        directory.members.append(_check_local(reader, member, directory))
        at += 46 + name_length + extra_length + comment_length
        seen += 1
    if seen < end.count:
        message = f"the end record counts {end.count:,} entries, the directory holds {seen:,}"
        directory.oddities.append(Oddity("entry-count", message, end.offset))
    elif reader.read_at(at, 4) == _CENTRAL and at < end.offset:
        message = f"the directory goes on after the {end.count:,} entries its end record counts"
        directory.oddities.append(Oddity("entry-count", message, at))


def _zip64(extra: bytes, size: int, packed: int, header: int) -> tuple[int, int, int]:
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, at)
        if kind == 1:
            body = extra[at + 4 : at + 4 + length]
            numbers = iter(struct.unpack(f"<{len(body) // 8}Q", body[: len(body) // 8 * 8]))
            size = next(numbers, size) if size == _MAX32 else size
            packed = next(numbers, packed) if packed == _MAX32 else packed
            header = next(numbers, header) if header == _MAX32 else header
        at += 4 + length
    return size, packed, header


def _name(raw: bytes, flags: int) -> str:
    return raw.decode("utf-8", "surrogateescape") if flags & _UTF8 else raw.decode("utf-8", "replace")


def _check_local(reader: ByteReader, member: ZipMember, directory: ZipDirectory) -> ZipMember:
    """The member with the place of its data, after comparing its two headers."""

    def odd(code: str, message: str) -> None:
        directory.oddities.append(Oddity(code, message, member.header, member.name))

    fixed = reader.read_at(member.header, 30) if member.header < reader.size else b""
    if len(fixed) < 30 or not fixed.startswith(LOCAL):
        odd("no-local-header", "there is no local header where the directory points")
        return member
    _, _, flags, method, _, _, crc, packed, size, name_length, extra_length = struct.unpack(
        "<4s5H3L2H", fixed
    )
    raw = reader.read_at(member.header + 30, name_length + extra_length)
    local_name = _name(raw[:name_length], flags)
    if local_name != member.name:
        odd("name-mismatch", f"the local header calls it {local_name[:120]!r}")
    if method != member.method:
        odd("method-mismatch", f"compression {method} in the local header, {member.method} in the directory")
    if (flags ^ member.flags) & ~_DESCRIPTOR & 0xFFFF:
        odd("flag-mismatch", f"flags {flags:#06x} in the local header, {member.flags:#06x} in the directory")
    if (flags | member.flags) & _ENCRYPTED:
        odd("encrypted-flag", "a member is marked as encrypted; readers that ignore the mark still load it")
    elif (flags | member.flags) & ~_KNOWN_FLAGS & 0xFFFF:
        odd("flag-bits", f"unusual flag bits {flags | member.flags:#06x}")
    if member.method not in METHODS:
        odd("unknown-method", f"compression method {member.method}")
    size, packed, _ = _zip64(raw[name_length:], size, packed, 0)
    if not flags & _DESCRIPTOR and (crc, packed, size) != (member.crc, member.packed, member.size):
        odd("size-mismatch", "sizes or checksum differ between local header and directory")
    data = member.header + 30 + name_length + extra_length
    if data + member.packed > reader.size:
        odd("beyond-end", f"the data ends {data + member.packed - reader.size:,} bytes after the file")
    member.data = data
    return member


def _check_names(directory: ZipDirectory) -> None:
    names = Counter(member.name for member in directory.members)
    folded = Counter(name.casefold() for name in names)
    for name, count in names.items():
        if count > 1:
            directory.oddities.append(
                Oddity("duplicate-name", f"{count} members have the same name", member=name)
            )
        elif folded[name.casefold()] > 1:
            directory.oddities.append(
                Oddity("case-collision", "another name differs only in case", member=name)
            )
        directory.oddities.extend(name_oddities(name))
    for member in directory.members:
        if member.is_symlink:
            directory.oddities.append(Oddity("link", "a symbolic link", member.header, member.name))


def name_oddities(name: str) -> Iterator[Oddity]:
    """What is dangerous about a member's name as a path."""
    path = name.replace("\\", "/")
    if path.startswith("/") or path[1:2] == ":":
        yield Oddity("absolute-path", "the name is an absolute path", member=name)
    if ".." in path.split("/"):
        yield Oddity("traversal", "the name climbs out of the folder it is unpacked to", member=name)
    if "\\" in name:
        yield Oddity("backslash", "the name holds a backslash, a separator on some hosts only", member=name)
    if any(ord(character) < 32 for character in name):
        yield Oddity("control-character", "the name holds control characters", member=name)


def _check_layout(reader: ByteReader, ends: list[_End], directory: ZipDirectory) -> None:
    """Overlapping members, and bytes that belong to nothing."""
    spans = [(m.header, m.data + m.packed, m.name, m.flags) for m in directory.members if m.data is not None]
    spans += [(end.start + end.shift, end.offset + end.length, "", 0) for end in ends]
    spans.sort()
    position = 0
    for start, stop, name, flags in spans:
        if start < position and name and stop > start:
            directory.oddities.append(Oddity("overlap", "members share bytes", start, name))
        elif start > position:
            directory.gaps.append((position, start - position))
        # A descriptor of 12 to 24 bytes may follow the data.
        position = max(position, stop + _descriptor_length(reader, stop) if flags & _DESCRIPTOR else stop)
    if position < reader.size:
        directory.gaps.append((position, reader.size - position))


def _descriptor_length(reader: ByteReader, at: int) -> int:
    """How far behind `at` the next record starts, when that is the length of a descriptor."""
    following = reader.read_at(at, 28)
    for length in (16, 24, 12, 20):
        if following[length : length + 2] == b"PK":
            return length
    return 0


def ends_with_archive(reader: ByteReader) -> bool:
    """Whether an end record closes the file to its last byte: what a reader that starts at the end sees."""
    ends = _end_records(reader)
    return any(end.offset + end.length == reader.size and end.count for end in ends)


def consecutive_ends(reader: ByteReader, limit: int) -> Iterator[int]:
    """Where each of several archives written one after another ends, within the first `limit` bytes."""
    start, at, block = 0, 0, 4 << 20
    while at < min(reader.size, limit):
        window = reader.read_at(at, block + _END_SIZE)
        found = window.find(END)
        while 0 <= found < block:
            length = _END_SIZE + int.from_bytes(window[found + 20 : found + 22], "little")
            end = at + found + length
            if _end_record(Slice(reader, start, end - start), at + found - start, window[found:][:_END_SIZE]):
                yield end
                start = end
            found = window.find(END, found + 1)
        at += block
