"""tar archives (v7, ustar, GNU, pax) as a list of members, read header by header without unpacking.

Layout: POSIX.1-1988 ustar, POSIX.1-2001 pax. Only what is needed to find each member's bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ftsec_audit.files import ByteReader
from ftsec_audit.formats.zip_archive import Oddity, name_oddities

_BLOCK = 512
_LONG_LIMIT = 1 << 16
_FILES = b"0\0 7"
_KINDS = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a device",
    b"4": "a device",
    b"6": "a named pipe",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class TarMember:
    name: str
    data: int
    size: int
    is_file: bool
    link: str = ""


@dataclass(frozen=True, kw_only=True)
class TarListing:
    members: tuple[TarMember, ...]
    oddities: tuple[Oddity, ...]
    end: int
    """First byte after the last block that was understood."""
    cut: bool


def is_tar(head: bytes) -> bool:
    """Whether the first block is a tar header: by its magic, or by its checksum alone (v7)."""
    return len(head) >= _BLOCK and _checksum_holds(head[:_BLOCK]) and head[0] != 0


def read_listing(reader: ByteReader, *, max_members: int) -> TarListing:
    members: list[TarMember] = []
    oddities: list[Oddity] = []
    at, name, link, cut, ended = 0, "", "", False, False
    while at + _BLOCK <= reader.size:
        block = reader.read_at(at, _BLOCK)
        if block.count(0) == _BLOCK:
            ended = True
            break
        size = _number(block[124:136])
        if not _checksum_holds(block) or size < 0:
            oddities.append(Oddity("damaged-header", "a member header is damaged", at))
            break
        kind, body, at = block[156:157], at + _BLOCK, at + _BLOCK + -(-size // _BLOCK) * _BLOCK
        if kind in b"LKx" and kind:
            text = reader.read_at(body, min(size, _LONG_LIMIT))
            name, link = _long_names(kind, text, name, link)
            continue
        if kind == b"g":
            continue
        member = _member(block, kind, body, size, name, link)
        name = link = ""
        if len(members) >= max_members:
            cut = True
            break
        members.append(member)
        oddities.extend(_member_oddities(member, kind, reader.size))
    if not (ended or cut or oddities):
        oddities.append(Oddity("no-end", "the archive has no end mark; it may be cut off", at))
    return TarListing(members=tuple(members), oddities=tuple(oddities), end=min(at, reader.size), cut=cut)


def _member(block: bytes, kind: bytes, body: int, size: int, name: str, link: str) -> TarMember:
    prefix = _text(block[345:500]) if block[257:262] == b"ustar" and block[263:265] == b"00" else ""
    short = _text(block[:100])
    return TarMember(
        name=name or (f"{prefix}/{short}" if prefix else short),
        data=body,
        size=size,
        is_file=kind in _FILES,
        link=link or _text(block[157:257]),
    )


def _member_oddities(member: TarMember, kind: bytes, file_size: int) -> Iterator[Oddity]:
    yield from name_oddities(member.name)
    if kind in _KINDS:
        target = f" to {member.link[:120]!r}" if kind in b"12" else ""
        yield Oddity("link", f"{_KINDS[kind]}{target}", member.data - _BLOCK, member.name)
    if member.data + member.size > file_size:
        missing = member.data + member.size - file_size
        yield Oddity(
            "beyond-end", f"the data ends {missing:,} bytes after the file", member.data, member.name
        )


def _long_names(kind: bytes, text: bytes, name: str, link: str) -> tuple[str, str]:
    if kind == b"L":
        return _text(text), link
    if kind == b"K":
        return name, _text(text)
    for record in text.split(b"\n"):
        key, _, value = record.partition(b" ")[2].partition(b"=")
        if key == b"path":
            name = _text(value)
        elif key == b"linkpath":
            link = _text(value)
    return name, link


def _checksum_holds(block: bytes) -> bool:
    stated = _number(block[148:156])
    return stated > 0 and stated == sum(block[:148]) + sum(block[156:512]) + 8 * 32


def _number(field: bytes) -> int:
    """Octal text, or GNU's big-endian binary; −1 when it is neither."""
    if field[:1] == b"\x80":
        return int.from_bytes(field[1:], "big")
    try:
        return int(field.strip(b" \0") or b"0", 8)
    except ValueError:
        return -1


def _text(raw: bytes) -> str:
    return raw.split(b"\0", 1)[0].decode("utf-8", "replace")
