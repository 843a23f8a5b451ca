"""Named tensors in files: where each one lies, and reading them without ever holding a whole file."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from ftsec_audit.errors import FormatError, Unsupported
from ftsec_audit.files import ArtifactFile, ByteReader, LocalBytes

if TYPE_CHECKING:
    import torch

DTYPE_BITS: Mapping[str, int] = {
    **dict.fromkeys(("F4",), 4),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    **dict.fromkeys(("BOOL", "U8", "I8"), 8),
    **dict.fromkeys(("F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 16),
    **dict.fromkeys(("I32", "U32", "F32"), 32),
    **dict.fromkeys(("I64", "U64", "F64", "C64"), 64),
    "C128": 128,
}
"""Bits per element. The spelling is that of safetensors, which has all of them but C128."""

TORCH_NAMES = {
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E8M0": "float8_e8m0fnu",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "I16": "int16",
    "U16": "uint16",
    "F16": "float16",
    "BF16": "bfloat16",
    "I32": "int32",
    "U32": "uint32",
    "F32": "float32",
    "I64": "int64",
    "U64": "uint64",
    "F64": "float64",
    "C64": "complex64",
    "C128": "complex128",
}
_OPEN_FILES = 2
"""Readers kept open: subject and base are streamed shard by shard, so one each would do."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Something wrong or unusual in the structure of a file; strings in it are hostile."""

    code: str
    """Stable name of the kind of problem, e.g. `overlap`, `beyond-end`, `repeated-name`."""
    message: str
    """What is the case, with its numbers; names no tensor."""
    file: str = ""
    tensor: str = ""
    offset: int | None = None
    """Absolute position in the file."""
    length: int | None = None
    """Bytes concerned, from `offset`."""
    fatal: bool = False
    """Whether this tensor (or, without a tensor, part of the file) was left out because of it."""


class TensorEntry(NamedTuple):
    """Where a tensor lies. Laws: the span lies inside the file; its elements lie inside the span."""

    name: str
    dtype: str
    """In the spelling of safetensors; a key of DTYPE_BITS."""
    shape: tuple[int, ...]
    file: ArtifactFile
    offset: int
    """Absolute position of the first element, in bytes."""
    nbytes: int
    """Length of the span that holds every element."""
    stride: tuple[int, ...] | None = None
    """In elements, or None when they lie in row-major order without gaps."""

    @property
    def numel(self) -> int:
        return math.prod(self.shape)


class TensorIndex(Mapping[str, TensorEntry]):
    """The readable tensors of one or several files, by name, in file order.

    Iteration goes through one file after another and upwards within each, so reading in that order
    touches every byte at most once with one file open. Not safe for concurrent use.
    """

    problems: tuple[Problem, ...]
    """Everything odd or damaged that was met while indexing; the index holds what is readable."""

    def __init__(self, entries: Iterable[TensorEntry], problems: Iterable[Problem] = ()) -> None:
        self._entries = {entry.name: entry for entry in entries}
        self._readers: OrderedDict[str, ByteReader] = OrderedDict()
        self.problems = tuple(problems)

    def __getitem__(self, name: str) -> TensorEntry:
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def is_local(self) -> bool:
        """Whether the first of its files, and so all, are files of this machine: reading twice is cheap."""
        first = next(iter(self._entries.values()), None)
        return first is not None and isinstance(self._reader(first.file), LocalBytes)

    def read(self, name: str) -> torch.Tensor:
        """The whole tensor in its own dtype, contiguous, in memory of its own.

        Raises KeyError, Unsupported (a dtype torch has no type for), SourceError, FormatError.
        """
        entry = self[name]
        flat = self._span(entry, entry.offset, _buffer(entry.nbytes))
        if entry.stride is None:
            return flat.reshape(entry.shape)
        return flat.as_strided(entry.shape, entry.stride).contiguous()

    def read_rows(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Rows `start:stop` along the first axis, clipped as a slice is; raises as `read`.

        Reads no more than the span of those rows: all of it when the first axis is not the outermost
        in memory.
        """
        entry = self[name]
        if not entry.shape:
            raise ValueError("a scalar has no rows")
        start, stop, _ = slice(start, stop).indices(entry.shape[0])
        shape = (max(0, stop - start), *entry.shape[1:])
        size = DTYPE_BITS[entry.dtype] // 8
        stride = entry.stride or contiguous_stride(entry.shape)
        offset = entry.offset + start * stride[0] * size
        flat = self._span(entry, offset, _buffer(span(shape, stride) * size))
        rows = flat.as_strided(shape, stride)
        return rows if entry.stride is None else rows.contiguous()

    def blocks(self, name: str, nbytes: int) -> Iterator[torch.Tensor]:
        """The tensor from start to end in blocks of at most `nbytes` (at least one element).

        Blocks are runs of whole rows, shaped `(k, *shape[1:])`, while a row fits; else flat pieces.
        Every block of a contiguous tensor is a view of one buffer: it is valid until the next one is
        asked for. A strided tensor is read whole first. Raises as `read`.
        """
        entry = self[name]
        if not entry.nbytes:
            return
        row_shape = entry.shape[1:]
        size = max(1, DTYPE_BITS[entry.dtype] // 8)
        row = math.prod(row_shape) * size
        by_rows = bool(entry.shape) and row <= nbytes
        unit = row if by_rows else size
        length = max(1, nbytes // unit) * unit
        if entry.stride is not None:
            whole = self.read(name)
            yield from (whole if by_rows else whole.reshape(-1)).split(length // unit)
            return
        buffer = _buffer(min(entry.nbytes, length))
        memory, values = buffer.numpy().data, buffer.view(torch_dtype(entry.dtype))
        whole = values.reshape(-1, *row_shape) if by_rows else values
        for done in range(0, entry.nbytes, len(memory)):
            left = min(len(memory), entry.nbytes - done)
            self._fill(entry, entry.offset + done, memory[:left])
            yield whole if left == len(memory) else whole[: left // unit]

    def read_each(self, names: Sequence[str], buffer: memoryview, start: int = 0) -> None:
        """Fill equal parts of `buffer` with the bytes of one tensor's span each, from byte `start` of it on.

        Raises KeyError, SourceError, FormatError.
        """
        size, done = len(buffer) // len(names), 0
        for name in names:
            entry = self._entries[name]
            self._fill(entry, entry.offset + start, buffer[done : done + size])
            done += size

    def read_runs(self, names: Iterable[str], buffer: memoryview) -> Iterator[list[int]]:
        """Read tensors that fit `buffer` into it, as many at once as follow one another in a file, too.

        Each list says at which byte the spans of the next of `names` begin; they are valid until the next
        list is asked for. Raises KeyError, SourceError, FormatError.
        """
        run: list[TensorEntry] = []
        begin = end = 0
        for name in names:
            entry = self._entries[name]
            beyond = entry.offset + entry.nbytes - begin > len(buffer)
            if run and (beyond or entry.offset != end or entry.file is not run[0].file):
                yield self._read_run(run, buffer)
                run = []
            if not run:
                begin = entry.offset
            run.append(entry)
            end = entry.offset + entry.nbytes
        if run:
            yield self._read_run(run, buffer)

    def _read_run(self, run: Sequence[TensorEntry], buffer: memoryview) -> list[int]:
        first, last = run[0], run[-1]
        length = last.offset + last.nbytes - first.offset
        read = self._reader(first.file).readinto_at(first.offset, buffer[:length])
        starts = [entry.offset - first.offset for entry in run]
        if read < length:
            cut = next(entry for entry in run if entry.offset + entry.nbytes > first.offset + read)
            raise _cut_short(cut)
        return starts

    def _span(self, entry: TensorEntry, offset: int, buffer: torch.Tensor) -> torch.Tensor:
        """Fill the bytes of `buffer` from the entry's file and view them in its dtype."""
        dtype = torch_dtype(entry.dtype)
        if len(buffer):
            self._fill(entry, offset, buffer.numpy().data)
        return buffer.view(dtype)

    def _fill(self, entry: TensorEntry, offset: int, buffer: memoryview) -> None:
        if self._reader(entry.file).readinto_at(offset, buffer) != len(buffer):
            raise _cut_short(entry)

    def _reader(self, file: ArtifactFile) -> ByteReader:
        reader = self._readers.get(file.path)
        if reader is None:
            reader = self._readers[file.path] = file.open()
            if len(self._readers) > _OPEN_FILES:
                self._readers.popitem(last=False)
        else:
            self._readers.move_to_end(file.path)
        return reader


def _cut_short(entry: TensorEntry) -> FormatError:
    return FormatError(f"the file ends inside tensor {entry.name!r}", where=entry.file.path)


def torch_dtype(dtype: str) -> torch.dtype:
    """The torch type of a safetensors dtype; raises Unsupported for F4, F6 and what torch lacks."""
    import torch

    found = getattr(torch, TORCH_NAMES.get(dtype, ""), None)
    if not isinstance(found, torch.dtype):
        raise Unsupported(f"values of dtype {dtype} cannot be read", hint="their structure is still checked")
    return found


def contiguous_stride(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Row-major strides in elements."""
    strides = [1]
    for extent in reversed(shape[1:]):
        strides.append(strides[-1] * extent)
    return tuple(reversed(strides[: len(shape)]))


def span(shape: tuple[int, ...], stride: tuple[int, ...]) -> int:
    """How many elements lie between the first and the last of a strided tensor, both included."""
    if 0 in shape:
        return 0
    return 1 + sum((extent - 1) * step for extent, step in zip(shape, stride, strict=True))


def _buffer(nbytes: int) -> torch.Tensor:
    import torch

    return torch.empty(nbytes, dtype=torch.uint8)
