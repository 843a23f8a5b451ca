"""Archives and compressed streams: what is odd about them, and every member handed on."""

from __future__ import annotations

import re
import zlib

from ftsec_audit.files import ByteReader
from ftsec_audit.formats import foreign, npy, seven_zip, tar_archive, unpacking, zip_archive
from ftsec_audit.formats.pickle_walk import read_pickles, search_bytes
from ftsec_audit.formats.sniff import Kind
from ftsec_audit.formats.unpacking import Unpacked
from ftsec_audit.formats.views import Slice
from ftsec_audit.formats.walk import Place, Walk
from ftsec_audit.formats.zip_archive import METHODS, Oddity, ZipDirectory, ZipMember
from ftsec_audit.types import Severity

_STORAGE = re.compile(r"(?:.*/)?(?:data|tensors|constants|xl_model_weights)/\d+\Z")
_BLOCK = 1 << 20
_ALIGNMENT = 4096
_MILD = {
    "backslash": Severity.MEDIUM,
    "beyond-end": Severity.MEDIUM,
    "damaged-header": Severity.MEDIUM,
    "no-end": Severity.MEDIUM,
}
_DAMAGE = frozenset(
    {"beyond-end", "damaged-header", "no-end", "no-local-header", "entry-count", "unknown-method"}
)


def read_zip(walk: Walk, place: Place) -> None:
    if walk.file.suffix == ".distcp" and not place.member:
        _shards(walk, place)
        return
    directory = zip_archive.read_directory(place.reader, max_members=walk.limits.unpack.members)
    if directory is None:
        walk.unread("zip-directory", "a ZIP archive without a readable directory", place.member)
        search_bytes(walk, place, 0, place.reader.size)
        return
    for oddity in directory.oddities:
        _note(walk, place, oddity)
    if directory.cut or directory.claimed > walk.limits.unpack.members:
        read = f"{len(directory.members):,} were read"
        message = f"a directory of {directory.claimed:,} members, of which {read}"
        walk.note(walk.facts.bombs, "members", message, Severity.HIGH, place.member)
    _gaps(walk, place, directory)
    names = {member.name for member in directory.members}
    foreign.judge_archive(walk, place, names)
    bomb = False
    for member in directory.members:
        if member.data is not None and not member.is_folder and not bomb:
            bomb = _zip_member(walk, place, member)


def _shards(walk: Walk, place: Place) -> None:
    """A shard of a distributed checkpoint: archives one after another, found through `.metadata`."""
    start = 0
    for end in zip_archive.consecutive_ends(place.reader, walk.limits.scan_bytes):
        piece = Place(
            reader=Slice(place.reader, start, end - start),
            member=place.inner(f"archive at byte {start}"),
            depth=place.depth + 1,
            kind=Kind.ZIP,
        )
        read_zip(walk, piece)
        start = end
    if start < place.reader.size:
        rest = Slice(place.reader, start, place.reader.size - start)
        walk.into(rest, place.inner(f"bytes at {start}"), place.depth + 1)


def _note(walk: Walk, place: Place, oddity: Oddity) -> None:
    where = place.inner(oddity.member) if oddity.member else place.member
    severity = _MILD.get(oddity.code, Severity.HIGH)
    walk.note(walk.facts.container, oddity.code, oddity.message, severity, where, oddity.offset)
    if oddity.code in _DAMAGE:
        walk.unread(oddity.code, oddity.message, where, oddity.offset)


def _gaps(walk: Walk, place: Place, directory: ZipDirectory) -> None:
    for offset, length in directory.gaps[:64]:
        head = place.reader.read_at(offset, min(length, _BLOCK))
        if not head.strip(b"\0"):
            continue
        where = "before the first member" if offset == 0 else f"at byte {offset:,}"
        message = f"{length:,} bytes {where} belong to no member"
        severity = Severity.HIGH if offset == 0 or length > _ALIGNMENT else Severity.MEDIUM
        walk.note(walk.facts.container, "unclaimed-bytes", message, severity, place.member, offset)
        walk.into(Slice(place.reader, offset, length), place.inner(f"bytes at {offset}"), place.depth + 1)


def _zip_member(walk: Walk, place: Place, member: ZipMember) -> bool:
    """Look into one member; returns whether it is a bomb, after which no more are unpacked."""
    where = place.inner(member.name)
    packed = Slice(place.reader, member.data or 0, member.packed)
    content: ByteReader
    if member.method == 0:
        content = packed
    elif member.method in METHODS:
        kind = METHODS[member.method]
        found = _unpack_member(walk, packed, kind)
        content = found.reader
        _unpacking_facts(walk, where, found)
        if found.bomb:
            return True
    else:
        return False  # already noted as unread
    if _STORAGE.match(member.name) and not _begins_like_pickle(content):
        _check_crc(walk, content, member, where)
        return False
    if content.size != member.size:
        message = f"{content.size:,} bytes where the directory says {member.size:,}"
        walk.note(walk.facts.container, "size-mismatch", message, Severity.HIGH, where)
    _check_crc(walk, content, member, where)
    walk.into(content, where, place.depth + 1)
    return False


def _begins_like_pickle(content: ByteReader) -> bool:
    head = content.read_at(0, 2)
    return len(head) == 2 and head[0] == 0x80 and head[1] <= 5


def _unpack_member(walk: Walk, packed: Slice, kind: str) -> Unpacked:
    if kind == "lzma":  # APPNOTE 5.8.8: version, length of properties, properties, raw stream
        head = packed.read_at(0, 9)
        filters = seven_zip.lzma1_filter(head[4:9])
        packed = Slice(packed, 9, packed.size)
        return _spend(
            walk,
            unpacking.unpack(
                packed, "lzma", budget=walk.budget(), limits=walk.limits.unpack, filters=filters
            ),
        )
    return _spend(walk, unpacking.unpack(packed, kind, budget=walk.budget(), limits=walk.limits.unpack))


def _spend(walk: Walk, found: Unpacked) -> Unpacked:
    walk.unpacked += found.reader.size
    return found


def _unpacking_facts(walk: Walk, where: str, found: Unpacked) -> None:
    if found.bomb:
        walk.note(walk.facts.bombs, "decompression", found.bomb, Severity.HIGH, where)
    if found.damage:
        walk.unread("damaged", found.damage, where)
    if found.cut:
        walk.unread("too-large", f"{found.cut}; the rest was not read", where)


def _check_crc(walk: Walk, content: ByteReader, member: ZipMember, where: str) -> None:
    if walk.checked + content.size > walk.limits.checksum_bytes:
        walk.unverified += 1
        return
    walk.checked += content.size
    crc = 0
    for offset in range(0, content.size, _BLOCK):
        crc = zlib.crc32(content.read_at(offset, _BLOCK), crc)
    if crc != member.crc:
        message = f"checksum {crc:08x} of the data, {member.crc:08x} in the directory"
        walk.note(walk.facts.container, "wrong-checksum", message, Severity.HIGH, where, member.header)


def read_tar(walk: Walk, place: Place) -> None:
    listing = tar_archive.read_listing(place.reader, max_members=walk.limits.unpack.members)
    for oddity in listing.oddities:
        _note(walk, place, oddity)
    if listing.cut:
        message = f"more than {walk.limits.unpack.members:,} members"
        walk.note(walk.facts.bombs, "members", message, Severity.HIGH, place.member)
    foreign.judge_archive(walk, place, {member.name for member in listing.members})
    for member in listing.members:
        if member.is_file:
            content = Slice(place.reader, member.data, member.size)
            walk.into(content, place.inner(member.name), place.depth + 1)
    search_bytes(walk, place, listing.end, place.reader.size)


def read_compressed(walk: Walk, place: Place) -> None:
    found = _spend(
        walk,
        unpacking.unpack(place.reader, place.kind.value, budget=walk.budget(), limits=walk.limits.unpack),
    )
    if found.damage and not found.reader.size and place.kind in (Kind.ZLIB, Kind.LZMA):
        return  # two bytes that happen to look like the header of a stream
    _unpacking_facts(walk, place.inner(f"{place.kind} content"), found)
    walk.into(found.reader, place.inner(f"{place.kind} content"), place.depth + 1, nested=place.nested)
    if found.consumed < place.reader.size and not (found.damage or found.bomb or found.cut):
        _compressed_tail(walk, place, found.consumed)


def _compressed_tail(walk: Walk, place: Place, end: int) -> None:
    rest = place.reader.size - end
    if place.reader.read_at(end, _BLOCK).strip(b"\0"):
        message = f"{rest:,} bytes follow the {place.kind} data"
        walk.note(walk.facts.container, "trailing-data", message, Severity.MEDIUM, place.member, end)
        search_bytes(walk, place, end, place.reader.size)


def read_seven_zip(walk: Walk, place: Place) -> None:
    for name, found in seven_zip.members(place.reader, walk.budget(), walk.limits.unpack, place.member):
        _spend(walk, found)
        where = place.inner(name)
        _unpacking_facts(walk, where, found)
        if found.bomb:
            return
        walk.into(found.reader, where, place.depth + 1)


def read_npy(walk: Walk, place: Place) -> None:
    header = npy.read_header(place.reader, place.member)
    rest = place.reader.size - header.data
    if header.has_objects:
        content = Slice(place.reader, header.data, rest)
        inner = place.inner("object array")
        read_pickles(walk, Place(reader=content, member=inner, depth=place.depth, kind=Kind.PICKLE))
        return
    if header.nbytes is None:
        return
    if header.nbytes > rest:
        message = f"shape {header.shape} makes {header.nbytes:,} bytes, the file holds {rest:,}"
        if header.nbytes > rest + (1 << 30):
            walk.note(walk.facts.bombs, "array-shape", message[:300], Severity.HIGH, place.member)
        else:
            walk.unread("truncated", message[:300], place.member)
    elif header.nbytes < rest:
        end = header.data + header.nbytes
        message = f"{rest - header.nbytes:,} bytes follow the array"
        walk.note(walk.facts.container, "trailing-data", message, Severity.MEDIUM, place.member, end)
        search_bytes(walk, place, end, place.reader.size)


def read_unsupported_archive(walk: Walk, place: Place) -> None:
    walk.unread("archive", f"{place.kind} archives are not read", place.member)
