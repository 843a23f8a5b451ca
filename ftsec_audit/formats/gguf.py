"""GGUF headers, read under limits: metadata, tensor descriptions, and everything wrong with them.

Layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 1-3, both byte orders. Counts
and lengths in the header are claims: nothing is allocated or repeated on their word alone.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from ftsec_audit.errors import BudgetExceeded, FormatError
from ftsec_audit.files import ArtifactFile, ByteReader

_DEFAULT_ALIGNMENT = 32
_ALIGNMENT = "general.alignment"
_LARGEST_DIMENSION = 1 << 63
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY, _BOOL, _UINT32 = 8, 9, 7, 4
_BYTE_TOKEN = re.compile(rb"<0x[0-9A-Fa-f]{2}>\Z")
_TOKENS = "tokenizer.ggml.tokens"
_BLOCKS: dict[int, tuple[int, int]] = {
    0: (1, 4),
    1: (1, 2),
    2: (32, 18),
    3: (32, 20),
    6: (32, 22),
    7: (32, 24),
    8: (32, 34),
    9: (32, 36),
    10: (256, 84),
    11: (256, 110),
    12: (256, 144),
    13: (256, 176),
    14: (256, 210),
    15: (256, 292),
    16: (256, 66),
    17: (256, 74),
    18: (256, 98),
    19: (256, 50),
    20: (32, 18),
    21: (256, 110),
    22: (256, 82),
    23: (256, 136),
    24: (1, 1),
    25: (1, 2),
    26: (1, 4),
    27: (1, 8),
    28: (1, 8),
    29: (256, 56),
    30: (1, 2),
    34: (256, 54),
    35: (256, 66),
    39: (32, 17),
}
"""ggml type → (elements per block, bytes per block)."""


@dataclass(frozen=True, kw_only=True)
class GgufLimits:
    """Bounds for one header."""

    entries: int = 65_536
    """Metadata keys."""
    tensors: int = 100_000
    elements: int = 4_000_000
    """Strings in all arrays together; the largest vocabularies have some 300,000."""
    string_bytes: int = 4 << 20
    """A longer string is not held, and said to be too long; templates have some 10,000 bytes."""
    header_bytes: int = 512 << 20
    name_bytes: int = 65_535
    """As in the specification, for keys."""


@dataclass(frozen=True, slots=True)
class GgufProblem:
    """Something wrong or unusual; strings in it are hostile."""

    code: str
    message: str
    offset: int
    name: str = ""
    """The metadata key or tensor concerned."""
    fatal: bool = False
    """Whether reading ended here."""


@dataclass(frozen=True, slots=True)
class GgufArray:
    """A metadata array by its extent; strings of arrays are checked but not held."""

    element_type: int
    count: int
    offset: int


@dataclass(frozen=True, slots=True)
class GgufTensor:
    name: str
    dimensions: tuple[int, ...]
    type: int
    offset: int
    """Within the data section."""

    @property
    def nbytes(self) -> int | None:
        """Length in bytes, or None for a type that is not known."""
        if self.type not in _BLOCKS:
            return None
        elements, size = _BLOCKS[self.type]
        return math.prod(self.dimensions) // elements * size


@dataclass(frozen=True, kw_only=True)
class GgufHeader:
    version: int
    entries: tuple[tuple[str, object], ...]
    """Metadata in file order, repeated keys included."""
    tensors: tuple[GgufTensor, ...]
    problems: tuple[GgufProblem, ...]
    data_start: int
    data_end: int
    """First byte after the last tensor; what follows is a tail."""

    @property
    def metadata(self) -> dict[str, object]:
        """Key → value: str, int, float, bool or `GgufArray`; the last of repeated keys."""
        return dict(self.entries)

    def templates(self) -> Iterator[tuple[str, str]]:
        """Every chat template with its key, repeated and named ones included."""
        for key, value in self.entries:
            if key.startswith("tokenizer.chat_template") and isinstance(value, str):
                yield key, value


class _End(Exception):
    """The header cannot be read on; carries the problem."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass
class _Parser:
    reader: ByteReader
    limits: GgufLimits
    order: str = "<"
    at: int = 0
    base: int = 0
    window: bytes = b""
    elements: int = 0
    problems: list[GgufProblem] = field(default_factory=list)

    def problem(self, code: str, message: str, name: str = "", *, fatal: bool = False) -> None:
        if len(self.problems) < 200:
            self.problems.append(GgufProblem(code, message, self.at, name, fatal))

    def take(self, count: int) -> bytes:
        start = self.at - self.base
        if start < 0 or start + count > len(self.window):
            if self.at + count > self.reader.size:
                raise _End("truncated", f"{count:,} bytes wanted, {self.reader.size - self.at:,} left")
            if self.at + count > self.limits.header_bytes:
                raise _End("header-size", f"the header is longer than {self.limits.header_bytes:,} bytes")
            self.base, start = self.at, 0
            self.window = self.reader.read_at(self.at, max(count, 1 << 20))
        self.at += count
        return self.window[start : start + count]

    def scalar(self, code: str) -> int:
        value: int = struct.unpack(self.order + code, self.take(struct.calcsize(code)))[0]
        return value

    def string(self, limit: int, what: str) -> bytes:
        length = self.scalar("Q")
        if length > self.reader.size - self.at:
            raise _End("length", f"{what} claims {length:,} bytes, {self.reader.size - self.at:,} are left")
        if length > limit:
            self.problem("long-string", f"{what} has {length:,} bytes")
            self.at += length
            return b""
        return self.take(length)


def read_header(file: ArtifactFile, *, limits: GgufLimits | None = None) -> GgufHeader:
    """Read the header of a file.

    Raises FormatError when it is no GGUF file, BudgetExceeded and SourceError; other damage is in
    `problems`, with what could be read before it.
    """
    return parse(file.open(), limits=limits or GgufLimits(), where=file.path)


def parse(reader: ByteReader, *, limits: GgufLimits, where: str = "") -> GgufHeader:
    """As `read_header`, for bytes from anywhere."""
    p = _Parser(reader, limits)
    magic, version = reader.read_at(0, 4), reader.read_at(4, 4)
    if magic not in (b"GGUF", b"FUGG") or len(version) < 4:
        raise FormatError("not a GGUF file", where=where)
    if magic == b"FUGG" or version[:2] == b"\0\0":
        p.order = ">"
    p.at = 4
    entries: list[tuple[str, object]] = []
    tensors: list[GgufTensor] = []
    number = p.scalar("I")
    try:
        if not 1 <= number <= 3:
            p.problem("version", f"version {number}, which does not exist")
        width = "I" if number == 1 else "Q"
        n_tensors, n_entries = p.scalar(width), p.scalar(width)
        _check_counts(p, n_tensors, n_entries, where)
        for _ in range(n_entries):
            entries.append(_entry(p))
        for _ in range(n_tensors):
            tensors.append(_tensor(p))
    except _End as end:
        p.problem(end.code, str(end), fatal=True)
    _check_entries(p, entries, tensors)
    alignment = _alignment(p, dict(entries))
    start = -(-p.at // alignment) * alignment
    fatal = any(problem.fatal for problem in p.problems)
    data_end = reader.size if fatal else _check_layout(p, tensors, start, alignment)
    return GgufHeader(
        version=number,
        entries=tuple(entries),
        tensors=tuple(tensors),
        problems=tuple(p.problems),
        data_start=start,
        data_end=data_end,
    )


def _check_counts(p: _Parser, n_tensors: int, n_entries: int, where: str) -> None:
    left = p.reader.size - p.at
    # The shortest entry has 13 bytes (empty key, one byte of value), the shortest tensor 24.
    if n_entries * 13 > left or n_tensors * 24 > left:
        raise _End("counts", f"{n_entries:,} entries and {n_tensors:,} tensors are claimed in {left:,} bytes")
    if n_entries > p.limits.entries or n_tensors > p.limits.tensors:
        raise BudgetExceeded(f"{n_entries:,} metadata entries and {n_tensors:,} tensors", where=where)


def _entry(p: _Parser) -> tuple[str, object]:
    key = p.string(p.limits.name_bytes, "a key").decode("utf-8", "replace")
    if not key:
        p.problem("empty-key", "a metadata key is empty")
    kind = p.scalar("I")
    if key == _ALIGNMENT and kind != _UINT32:
        p.problem("alignment", f"{_ALIGNMENT} has value type {kind}, not a 32-bit number", key)
    return key, _value(p, kind, key)


def _value(p: _Parser, kind: int, key: str) -> object:
    if kind == _STRING:
        raw = p.string(p.limits.string_bytes, f"the value of {key[:80]!r}")
        return raw.decode("utf-8", "surrogateescape")
    if kind == _ARRAY:
        return _array(p, key)
    if kind not in _SCALARS:
        raise _End("value-type", f"value type {kind} of {key[:80]!r} does not exist")
    if kind == _BOOL:
        raw = p.take(1)
        if raw not in b"\0\1":
            p.problem("bool-value", f"a truth value of {raw[0]}", key)
        return raw != b"\0"
    return p.scalar(_SCALARS[kind])


def _array(p: _Parser, key: str) -> GgufArray:
    kind, count, start = p.scalar("I"), p.scalar("Q"), p.at
    left = p.reader.size - p.at
    if kind in _SCALARS:
        size = count * struct.calcsize(_SCALARS[kind])
        if size > left:
            raise _End(
                "array-length", f"array {key[:80]!r} claims {count:,} elements, {left:,} bytes are left"
            )
        p.at += size
    elif kind == _STRING:
        if count * 8 > left:
            raise _End(
                "array-length", f"array {key[:80]!r} claims {count:,} strings, {left:,} bytes are left"
            )
        _strings(p, key, count)
    elif kind == _ARRAY:
        raise _End("nested-array", f"array {key[:80]!r} holds arrays")
    else:
        raise _End("element-type", f"element type {kind} of array {key[:80]!r} does not exist")
    return GgufArray(kind, count, start)


def _strings(p: _Parser, key: str, count: int) -> None:
    p.elements += count
    if p.elements > p.limits.elements:
        raise _End("elements", f"more than {p.limits.elements:,} strings in arrays")
    odd = 0
    for _ in range(count):
        text = p.string(p.limits.string_bytes, f"an element of {key[:80]!r}")
        if text[:3] == b"<0x" and text[-1:] == b">" and not _BYTE_TOKEN.match(text) and len(text) < 16:
            odd += 1
            if odd == 1 and key == _TOKENS:
                token = text.decode("utf-8", "replace")
                p.problem("byte-token", f"the token {token!r} names a byte that does not exist", key)


def _tensor(p: _Parser) -> GgufTensor:
    name = p.string(p.limits.name_bytes, "a tensor name").decode("utf-8", "replace")
    n_dimensions = p.scalar("I")
    if n_dimensions > 4:
        p.problem("dimensions", f"{n_dimensions} dimensions; the format allows 4", name)
        if n_dimensions > 64:
            raise _End("dimensions", f"{n_dimensions:,} dimensions")
    dimensions = struct.unpack(f"{p.order}{n_dimensions}Q", p.take(8 * n_dimensions))
    return GgufTensor(name, dimensions, p.scalar("I"), p.scalar("Q"))


def _check_entries(p: _Parser, entries: list[tuple[str, object]], tensors: list[GgufTensor]) -> None:
    for what, names in (("key", [k for k, _ in entries]), ("tensor", [t.name for t in tensors])):
        seen: set[str] = set()
        for name in names:
            if name in seen:
                p.problem(f"duplicate-{what}", f"the {what} occurs more than once; readers differ", name)
            seen.add(name)
    blocks = {int(m[1]) for t in tensors if (m := re.match(r"blk\.(\d{1,6})\.", t.name))}
    for key, value in entries:
        if not key.endswith(".block_count"):
            continue
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= 100_000:
            p.problem("block-count", f"{key[:80]} is {str(value)[:40]}", key)
        elif blocks and value <= max(blocks) and len(blocks) > value:
            p.problem("block-count", f"{key[:80]} is {value}, the tensors name {len(blocks)} blocks", key)


def _alignment(p: _Parser, metadata: dict[str, object]) -> int:
    value = metadata.get(_ALIGNMENT, _DEFAULT_ALIGNMENT)
    if type(value) is int and 0 < value <= 1 << 20 and value & (value - 1) == 0:
        return value
    p.problem("alignment", f"{_ALIGNMENT} is {str(value)[:40]}, not a power of two", _ALIGNMENT)
    return _DEFAULT_ALIGNMENT


def _check_layout(p: _Parser, tensors: list[GgufTensor], start: int, alignment: int) -> int:
    """Problems of the data section; returns where the last tensor ends."""
    position = end = start
    for tensor in sorted(tensors, key=lambda tensor: tensor.offset):
        if math.prod(tensor.dimensions) >= _LARGEST_DIMENSION or any(d == 0 for d in tensor.dimensions):
            message = f"dimensions {' × '.join(map(str, tensor.dimensions))[:120]}"
            p.problem("dimension-overflow", message, tensor.name)
            continue
        if tensor.offset % alignment:
            p.problem("misaligned", f"the data offset {tensor.offset:,} is not aligned", tensor.name)
        nbytes = tensor.nbytes
        if nbytes is None:
            p.problem("unknown-type", f"tensor type {tensor.type} is not known", tensor.name)
            end = p.reader.size
            continue
        begin = start + tensor.offset
        if begin + nbytes > p.reader.size:
            over = begin + nbytes - p.reader.size
            p.problem("beyond-end", f"the tensor ends {over:,} bytes after the file", tensor.name)
        elif begin < position:
            p.problem("overlap", "the tensor shares bytes with the one before it", tensor.name)
        elif begin - position >= alignment:
            p.problem("hole", f"{begin - position:,} bytes before it belong to no tensor", tensor.name)
        position = max(position, begin + nbytes)
    return min(p.reader.size, max(position, end))
