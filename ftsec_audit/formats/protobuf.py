"""The protobuf wire format, field by field, over a reader: nothing is trusted and nothing is copied early.

Encoding: https://protobuf.dev/programming-guides/encoding. A length-delimited field is given as its place;
the caller decides whether it is worth reading.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ftsec_audit.errors import BudgetExceeded, FormatError
from ftsec_audit.files import ByteReader

VARINT, I64, LEN, I32 = 0, 1, 2, 5
_WINDOW = 1 << 16


@dataclass(frozen=True, slots=True)
class Field:
    number: int
    wire: int
    value: int
    """The number of a VARINT, I32 or I64; the length of a LEN field."""
    offset: int
    """Of the payload of a LEN field."""


class WireReader:
    """Iterates over the fields of messages in one file, within a budget of fields."""

    def __init__(self, reader: ByteReader, *, fields: int, where: str = "") -> None:
        self._reader = reader
        self._left = fields
        self._where = where
        self._base = 0
        self._window = b""

    def fields(self, start: int, end: int) -> Iterator[Field]:
        """The fields of the message between two offsets; raises FormatError, BudgetExceeded."""
        at = start
        while at < end:
            self._left -= 1
            if self._left < 0:
                raise BudgetExceeded("too many protobuf fields", where=self._where)
            tag, at = self._varint(at, end)
            number, wire = tag >> 3, tag & 7
            if number == 0:
                raise FormatError(f"protobuf field number 0 at byte {at}", where=self._where)
            if wire == VARINT:
                value, at = self._varint(at, end)
                yield Field(number, wire, value, at)
            elif wire in (I64, I32):
                width = 8 if wire == I64 else 4
                if at + width > end:
                    raise FormatError(f"protobuf data ends early at byte {at}", where=self._where)
                yield Field(number, wire, int.from_bytes(self._bytes(at, width), "little"), at)
                at += width
            elif wire == LEN:
                length, at = self._varint(at, end)
                if length > end - at:
                    raise FormatError(
                        f"a protobuf field of {length:,} bytes at byte {at}, {end - at:,} left",
                        where=self._where,
                    )
                yield Field(number, wire, length, at)
                at += length
            else:
                raise FormatError(f"protobuf wire type {wire} at byte {at}", where=self._where)

    def text(self, field: Field, limit: int = 4096) -> str:
        """The string of a LEN field, cut at `limit` bytes."""
        return self._reader.read_at(field.offset, min(field.value, limit)).decode("utf-8", "replace")

    def numbers(self, field: Field) -> Iterator[int]:
        """The packed varints of a LEN field, each of which counts as a field."""
        at, end = field.offset, field.offset + field.value
        while at < end:
            self._left -= 1
            if self._left < 0:
                raise BudgetExceeded("too many protobuf fields", where=self._where)
            value, at = self._varint(at, end)
            yield value

    def _varint(self, at: int, end: int) -> tuple[int, int]:
        value = 0
        for shift in range(0, 70, 7):
            if at >= end:
                raise FormatError(f"protobuf data ends early at byte {at}", where=self._where)
            byte = self._byte(at)
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, at
        raise FormatError(f"a protobuf number of more than 10 bytes at byte {at}", where=self._where)

    def _byte(self, at: int) -> int:
        if not self._base <= at < self._base + len(self._window):
            self._base, self._window = at, self._reader.read_at(at, _WINDOW)
            if not self._window:
                raise FormatError(f"protobuf data ends early at byte {at}", where=self._where)
        return self._window[at - self._base]

    def _bytes(self, at: int, length: int) -> bytes:
        return self._reader.read_at(at, length)
