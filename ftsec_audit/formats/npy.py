"""NumPy's .npy header: shape, dtype, and where the data lies, without evaluating the header.

Layout: NEP 1. numpy itself reads the header with `ast.literal_eval`; here it is matched, because a
literal nested deeply enough breaks Python's parser.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from ftsec_audit.errors import FormatError
from ftsec_audit.files import ByteReader

MAGIC = b"\x93NUMPY"
_HEADER_LIMIT = 1 << 16
_HEADER = re.compile(
    r"\{\s*'descr':\s*(?P<descr>'[^']{1,64}'|\[[^{}]{1,60000}\]|\([^{}]{1,60000}\)),"
    r"\s*'fortran_order':\s*(?:True|False),"
    r"\s*'shape':\s*\((?P<shape>[\d\sL,]{0,2000})\),?\s*\}\s*\Z"
)
_SIMPLE = re.compile(r"[<>|=]?([?bBhHiIlLqQefdgFDGSUVMmOacu])(\d{0,10})(\[\w+\])?\Z")


@dataclass(frozen=True, kw_only=True)
class NpyHeader:
    descr: str
    """As written, with its quotes or brackets."""
    shape: tuple[int, ...]
    data: int
    """Offset of the first element."""
    itemsize: int | None
    """Bytes per element; None for structured dtypes, whose size is not computed."""

    @property
    def has_objects(self) -> bool:
        """Whether the data is a pickle."""
        return re.search(r"['|]\|?O\d*'", self.descr) is not None

    @property
    def nbytes(self) -> int | None:
        return None if self.itemsize is None else math.prod(self.shape) * self.itemsize


def read_header(reader: ByteReader, where: str = "") -> NpyHeader:
    """Raises FormatError when the header is damaged."""
    head = reader.read_at(0, 12)
    if not head.startswith(MAGIC) or len(head) < 10 or head[6] not in (1, 2, 3):
        raise FormatError("not an .npy file of version 1 to 3", where=where)
    width = 2 if head[6] == 1 else 4
    length = int.from_bytes(head[8 : 8 + width], "little")
    data = 8 + width + length
    if length > _HEADER_LIMIT or data > reader.size:
        raise FormatError(f"the header claims {length:,} bytes", where=where)
    text = reader.read_at(8 + width, length).decode("utf-8", "replace")
    match = _HEADER.match(text)
    if match is None:
        raise FormatError("the header is not the literal that numpy writes", where=where)
    sizes = [part.strip().rstrip("L") for part in match["shape"].split(",")]
    if any(part and (not part.isdigit() or len(part) > 40) for part in sizes):
        raise FormatError("the shape is not a tuple of sizes", where=where)
    shape = tuple(int(part) for part in sizes if part)
    return NpyHeader(descr=match["descr"], shape=shape, data=data, itemsize=_itemsize(match["descr"]))


def _itemsize(descr: str) -> int | None:
    match = _SIMPLE.match(descr.strip("'"))
    if not descr.startswith("'") or match is None:
        return None
    kind, digits, _ = match.groups()
    if kind == "O":
        return None
    return int(digits or 1) * (4 if kind == "U" else 1)
