"""Decompression under limits: one stream in, a reader out, and what was odd about it."""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from ftsec_audit.files import ByteReader
from ftsec_audit.formats.views import Spool

_CHUNK = 1 << 18


@dataclass(frozen=True, kw_only=True)
class UnpackLimits:
    """When a compressed stream is a bomb, and when it is only too large."""

    total: int = 1 << 30
    """Bytes unpacked from one file of the artifact, all members and levels together."""
    bomb_bytes: int = 96 << 20
    bomb_ratio: float = 200.0
    """More than `bomb_bytes` out at more than this many bytes per byte in is a bomb."""
    depth: int = 6
    """Containers inside containers."""
    members: int = 20_000
    """Entries of one archive; a mixture-of-experts checkpoint has some 5,000 storages."""
    lzma_memory: int = 128 << 20


@dataclass(frozen=True, kw_only=True)
class Unpacked:
    """What a stream held, as far as it was unpacked."""

    reader: Spool
    consumed: int
    """Bytes of input used up to the end of the last complete stream."""
    damage: str = ""
    bomb: str = ""
    cut: str = ""
    """Why unpacking ended before the data did, when it is neither damage nor a bomb."""


class _Decoder(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    @property
    def needs_input(self) -> bool: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


class _Inflate:
    """zlib's decompressor with the surface of the others."""

    def __init__(self, wbits: int) -> None:
        self._inner = zlib.decompressobj(wbits)

    eof = property(lambda self: self._inner.eof)
    unused_data = property(lambda self: self._inner.unused_data)
    needs_input = property(lambda self: not self._inner.unconsumed_tail)

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        return self._inner.decompress(self._inner.unconsumed_tail + data, max(0, max_length))


def _xz(limits: UnpackLimits, filters: list[dict[str, object]] | None) -> _Decoder:
    if filters is not None:
        return lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=filters)
    return lzma.LZMADecompressor(lzma.FORMAT_AUTO, memlimit=limits.lzma_memory)


_MAKERS: dict[str, Callable[[UnpackLimits, list[dict[str, object]] | None], _Decoder]] = {
    "gzip": lambda _, __: _Inflate(31),
    "zlib": lambda _, __: _Inflate(15),
    "deflate": lambda _, __: _Inflate(-15),
    "bzip2": lambda _, __: bz2.BZ2Decompressor(),
    "xz": _xz,
    "lzma": _xz,
}
_CONCATENATED = frozenset({"gzip", "bzip2", "xz"})
_ERRORS = (zlib.error, lzma.LZMAError, OSError, EOFError, ValueError)


def unpack(
    reader: ByteReader,
    kind: str,
    *,
    budget: int,
    limits: UnpackLimits,
    filters: list[dict[str, object]] | None = None,
) -> Unpacked:
    """Unpack `kind` (gzip, zlib, deflate, bzip2, xz, lzma) from the start of a reader.

    Concatenated streams are followed, as the command-line tools do. `filters` are those of a raw LZMA
    stream. Raises SourceError only.
    """
    out, position, finished = Spool(), 0, 0
    decoder = _MAKERS[kind](limits, filters)
    while True:
        try:
            piece = reader.read_at(position, _CHUNK) if decoder.needs_input else b""
            position += len(piece)
            data = decoder.decompress(piece, _CHUNK)
        except _ERRORS as error:
            damage = f"{kind} data is damaged after {out.size:,} bytes: {error}"
            # What stands behind a complete stream is a tail for the caller, not damage.
            return Unpacked(reader=out, consumed=finished, damage="" if finished else damage)
        out.write(data)
        if out.size > limits.bomb_bytes and out.size > limits.bomb_ratio * max(position, 1):
            bomb = f"{position:,} bytes of {kind} give more than {out.size:,}"
            return Unpacked(reader=out, consumed=position, bomb=bomb)
        if out.size > budget:
            return Unpacked(reader=out, consumed=position, cut=f"more than {budget:,} bytes of {kind} data")
        if decoder.eof:
            finished = position = position - len(decoder.unused_data)
            if kind not in _CONCATENATED or position >= reader.size or not _continues(reader, position, kind):
                return Unpacked(reader=out, consumed=finished)
            decoder = _MAKERS[kind](limits, filters)
        elif not piece and not data and position >= reader.size:
            damage = f"{kind} data ends early after {out.size:,} bytes"
            return Unpacked(reader=out, consumed=finished, damage="" if finished else damage)


_MAGIC = {"gzip": b"\x1f\x8b", "bzip2": b"BZh", "xz": b"\xfd7zXZ\0"}


def _continues(reader: ByteReader, position: int, kind: str) -> bool:
    return reader.read_at(position, 6).startswith(_MAGIC[kind])
