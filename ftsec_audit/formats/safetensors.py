"""safetensors, read with an own bounded parser that reports what the reference loader would hide or refuse.

Layout: u64 little-endian length of the header, a JSON header, then the bytes of the tensors without holes
(https://huggingface.co/docs/safetensors). Law of the result: entries lie inside the file and do not
overlap, so reading all of them costs at most the size of the file, whatever the header claims.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ftsec_audit.errors import BudgetExceeded, FormatError
from ftsec_audit.files import ArtifactFile
from ftsec_audit.formats import bounded_json
from ftsec_audit.formats.bounded_json import JsonDocument, JsonLimits, RepeatedKeys
from ftsec_audit.formats.tensors import DTYPE_BITS, Problem, TensorEntry

_LENGTH = 8
_METADATA = "__metadata__"
_PADDING = b"\0 \t\r\n"
_LARGEST_PADDING = 4096
_BEYOND = 1 << 63
_PUBLISHED = frozenset(DTYPE_BITS) - {"C128"}
_ENTRY_KEYS = frozenset({"dtype", "shape", "data_offsets"})


@dataclass(frozen=True, kw_only=True)
class HeaderLimits:
    """Bounds for one header; a mixture-of-experts shard has some 5,000 tensors."""

    header_bytes: int = 100_000_000
    """As in the reference implementation."""
    tensors: int = 200_000
    values: int = 3_000_000
    dimensions: int = 64
    """torch's own maximum."""


@dataclass(frozen=True, kw_only=True)
class SafetensorsHeader:
    """What a header says, as far as it can be true."""

    entries: tuple[TensorEntry, ...]
    """The tensors that can be read, in file order."""
    metadata: Mapping[str, str]
    problems: tuple[Problem, ...]


def index(file: ArtifactFile, *, limits: HeaderLimits = HeaderLimits()) -> list[TensorEntry]:
    """The readable tensors of a file.

    Raises FormatError when it is no safetensors file or none of its tensors can be read, BudgetExceeded
    and SourceError.
    """
    header = read_header(file, limits=limits)
    fatal = [problem for problem in header.problems if problem.fatal]
    if fatal and not header.entries:
        raise FormatError(f"no tensor can be read: {fatal[0].message}", where=file.path)
    return list(header.entries)


def read_header(file: ArtifactFile, *, limits: HeaderLimits = HeaderLimits()) -> SafetensorsHeader:
    """Parse and check a header; reads nothing but the header.

    Raises FormatError when there is no header to speak of, BudgetExceeded and SourceError.
    """
    with bounded_json.collector_paused():
        return _read_header(file, limits)


def _read_header(file: ArtifactFile, limits: HeaderLimits) -> SafetensorsHeader:
    text = _header_text(file, limits)
    bounds = JsonLimits(size=limits.header_bytes, values=limits.values, nesting=None)
    document = bounded_json.parse(text.rstrip(_PADDING), limits=bounds, where=file.path)
    members = document.value
    if not isinstance(members, dict):
        raise FormatError("the header is not a JSON object", where=file.path)
    if len(members) > limits.tensors + 1:
        raise BudgetExceeded(f"{len(members):,} tensors, the limit is {limits.tensors:,}", where=file.path)
    problems = list(_text_problems(file, text, document))
    metadata = _metadata(file, members.pop(_METADATA, {}), problems)
    data_start = _LENGTH + len(text)
    claimed = _claimed(file, data_start, members, limits, problems)
    entries = _disjoint(file, data_start, claimed, problems)
    return SafetensorsHeader(entries=tuple(entries), metadata=metadata, problems=tuple(problems))


def _header_text(file: ArtifactFile, limits: HeaderLimits) -> bytes:
    """The header with its padding."""
    reader = file.open()
    length = int.from_bytes(reader.read_at(0, _LENGTH), "little")
    available = reader.size - _LENGTH
    if available < 2:
        raise FormatError(f"{reader.size} bytes are too few for a safetensors file", where=file.path)
    if length > available:
        raise FormatError(
            f"the header claims {length:,} bytes, the file has {available:,} after the length",
            where=file.path,
            hint="truncated, or not a safetensors file",
        )
    if length > limits.header_bytes:
        raise FormatError(
            f"the header claims {length:,} bytes, the format allows {limits.header_bytes:,}", where=file.path
        )
    return reader.read_at(_LENGTH, length)


def _text_problems(file: ArtifactFile, text: bytes, document: JsonDocument) -> Iterator[Problem]:
    """What is unusual about the header as a text, before its meaning."""

    def problem(code: str, message: str) -> Problem:
        return Problem(code=code, message=message, file=file.path, offset=_LENGTH, length=len(text))

    if not text.startswith(b"{"):
        yield problem("header-start", "the header does not begin with `{`")
    padding = text[len(text.rstrip(_PADDING)) :]
    if b"\0" in padding:
        yield problem("nul-padding", f"the header is padded with {padding.count(0):,} NUL bytes, not spaces")
    if len(padding) > _LARGEST_PADDING:
        yield problem("large-padding", f"the header is padded with {len(padding):,} bytes")
    if document.tail:
        yield problem("header-tail", f"{len(document.tail):,} characters follow the JSON of the header")
    if document.constants:
        yield problem("not-json", f"the header contains {document.constants[0]}, which JSON does not have")
    if isinstance(document.value, RepeatedKeys):
        for name in document.value.keys_repeated:
            message = "the name occurs more than once in the header; the last occurrence counts"
            yield Problem(code="repeated-name", message=message, file=file.path, tensor=name)


def _metadata(file: ArtifactFile, value: object, problems: list[Problem]) -> dict[str, str]:
    """The string pairs of `__metadata__`."""
    if not isinstance(value, dict):
        message = f"{_METADATA} is {_kind(value)}, not an object"
        problems.append(Problem(code="metadata", message=message, file=file.path))
        return {}
    if isinstance(value, RepeatedKeys):
        message = f"{_METADATA} repeats {len(value.keys_repeated)} of its keys"
        problems.append(Problem(code="repeated-metadata", message=message, file=file.path))
    metadata = {key: text for key, text in value.items() if isinstance(text, str)}
    if len(metadata) < len(value):
        message = f"{len(value) - len(metadata)} values of {_METADATA} are not strings"
        problems.append(Problem(code="metadata", message=message, file=file.path))
    return metadata


def _claimed(
    file: ArtifactFile,
    data_start: int,
    members: Mapping[str, object],
    limits: HeaderLimits,
    problems: list[Problem],
) -> list[TensorEntry]:
    """The entries that are right by themselves: well formed, inside the file, as long as their shape says."""
    entries = []
    available = file.size - data_start
    for name, member in members.items():
        try:
            if not isinstance(member, dict):
                raise _Malformed("malformed", f"the entry is {_kind(member)}, not an object")
            dtype, shape, begin, end = _fields(member, limits)
            if math.prod(shape) * DTYPE_BITS[dtype] != (end - begin) * 8:
                raise _Malformed("size-mismatch", _mismatch(dtype, shape, end - begin))
            if end > available:
                message = f"the tensor ends {end - available:,} bytes after the end of the file"
                raise _Malformed("beyond-end", message)
        except _Malformed as reason:
            problems.append(_fatal(file, name, reason.code, str(reason)))
            continue
        entries.append(TensorEntry(name, dtype, shape, file, data_start + begin, end - begin))
        if len(member) > len(_ENTRY_KEYS):
            message = f"the entry has {len(member) - len(_ENTRY_KEYS)} unknown keys"
            problems.append(Problem(code="unknown-key", message=message, file=file.path, tensor=name))
        if type(member) is RepeatedKeys:
            message = f"the entry repeats {', '.join(member.keys_repeated)}; the last occurrence counts"
            problems.append(Problem(code="repeated-key", message=message, file=file.path, tensor=name))
    return entries


def _fields(member: Mapping[str, object], limits: HeaderLimits) -> tuple[str, tuple[int, ...], int, int]:
    """dtype, shape, begin and end of one entry; raises _Malformed."""
    try:
        dtype, shape, offsets = member["dtype"], member["shape"], member["data_offsets"]
    except KeyError as missing:
        raise _Malformed("malformed", f"the entry lacks {missing.args[0]}") from None
    if type(dtype) is not str or dtype not in _PUBLISHED:
        raise _Malformed("unknown-dtype", f"the dtype {str(dtype)[:32]!r} is not one of the format's")
    if type(offsets) is not list or len(offsets) != 2:
        raise _Malformed("malformed", "data_offsets is not a pair")
    if type(shape) is not list or len(shape) > limits.dimensions:
        raise _Malformed("malformed", f"the shape is no list of at most {limits.dimensions} sizes")
    for number in shape + offsets:
        # JSON's `true` and `1.0` compare equal to 1, hence the type.
        if type(number) is not int or not 0 <= number < _BEYOND:
            raise _Malformed("malformed", "a size or an offset is not an integer from 0 to 2⁶³ - 1")
    begin, end = offsets
    if begin > end:
        raise _Malformed("malformed", f"the tensor begins at byte {begin:,} and ends before, at {end:,}")
    return dtype, tuple(shape), begin, end


def _mismatch(dtype: str, shape: tuple[int, ...], length: int) -> str:
    wanted = math.prod(shape) * DTYPE_BITS[dtype]
    return f"shape and dtype make {wanted // 8:,} bytes and {wanted % 8} bits, the offsets {length:,} bytes"


def _disjoint(
    file: ArtifactFile, data_start: int, claimed: list[TensorEntry], problems: list[Problem]
) -> Iterator[TensorEntry]:
    """Entries in file order, without those that reach into the one before; reports holes and a tail."""
    position = data_start
    for entry in sorted(claimed, key=lambda entry: (entry.offset, entry.nbytes)):
        gap = entry.offset - position
        if gap < 0:
            message = f"the tensor shares {min(-gap, entry.nbytes):,} bytes with the one before it"
            problems.append(_fatal(file, entry.name, "overlap", message))
            continue
        if gap:
            problems.append(_unclaimed(file, "hole", "belong to no tensor", position, gap))
        position = entry.offset + entry.nbytes
        yield entry
    if position < file.size:
        rest = file.size - position
        problems.append(_unclaimed(file, "tail", "follow the last tensor", position, rest))


def _unclaimed(file: ArtifactFile, code: str, what: str, offset: int, length: int) -> Problem:
    message = f"{length:,} bytes from {offset:,} {what}"
    return Problem(code=code, message=message, file=file.path, offset=offset, length=length)


class _Malformed(Exception):
    """An entry that cannot mean a tensor."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def _fatal(file: ArtifactFile, name: str, code: str, message: str) -> Problem:
    return Problem(code=code, message=message, file=file.path, tensor=name, fatal=True)


def _kind(value: object) -> str:
    return "null" if value is None else f"a JSON {type(value).__name__}"
