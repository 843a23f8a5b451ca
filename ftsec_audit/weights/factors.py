"""Thin factors of many modules of one shape, in memory or in files, a block that fits the cache at a time.

A factor X is (d, r), tall: B of an update as it is, A transposed. Nothing here is safe for two threads.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ftsec_audit.formats.tensors import TensorIndex, torch_dtype

BLOCK_ELEMENTS = 1 << 20
"""Read at a time, so that a block is still in a cache when it is used."""


class Scratch:
    """Memory that one block after another is read and converted into: fresh pages cost more than the work.

    Belongs to one stream of tensors; a block is valid until the next of its dtype is asked for.
    """

    def __init__(self) -> None:
        self._memory: dict[torch.dtype, Tensor] = {}
        self._taken: dict[torch.dtype, tuple[Tensor, memoryview]] = {}
        """What was last taken: mostly, the next block is like the last."""

    def take(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """A contiguous tensor of anything."""
        return self.take_with_bytes(shape, dtype)[0]

    def take_with_bytes(self, shape: Sequence[int], dtype: torch.dtype) -> tuple[Tensor, memoryview]:
        """The same, and the memory it lies in, to read into."""
        last = self._taken.get(dtype)
        if last is not None and last[0].shape == shape:
            return last
        size = math.prod(shape)
        memory = self._memory.get(dtype)
        if memory is None or memory.numel() < size:
            memory = self._memory[dtype] = torch.empty(size, dtype=dtype)
        flat = memory[:size]
        taken = self._taken[dtype] = flat.view(*shape), flat.view(torch.uint8).numpy().data
        return taken

    def converted(self, block: Tensor, dtype: torch.dtype) -> Tensor:
        """The block in that dtype, with its own order of axes; the block itself where it has it already."""
        if block.dtype == dtype:
            return block
        turned = block.stride(-2) < block.stride(-1)
        source = block.mT if turned else block
        copy = self.take(source.shape, dtype).copy_(source)
        return copy.mT if turned else copy


class Factors(ABC):
    """Factors of n modules, (n, d, r)."""

    shape: tuple[int, int, int]
    scratch: Scratch

    @abstractmethod
    def blocks(self) -> Iterator[tuple[slice, slice, Tensor]]:
        """(which modules, which rows, their values as stored); valid until the next block is asked for."""

    @abstractmethod
    def chosen(self, indices: Sequence[int]) -> Factors:
        """The factors of some of the modules."""

    @abstractmethod
    def single(self, index: int) -> Tensor:
        """The factor of one module, (d, r) as stored; not to be written to."""


class HeldFactors(Factors):
    """Factors in memory."""

    def __init__(self, tensor: Tensor) -> None:
        """From (n, d, r) of any floating dtype."""
        self.shape = (tensor.shape[0], tensor.shape[1], tensor.shape[2])
        self.scratch = Scratch()
        self._tensor = tensor

    def blocks(self) -> Iterator[tuple[slice, slice, Tensor]]:
        for some, rows in _blocks(self.shape):
            yield some, rows, self._tensor[some, rows]

    def chosen(self, indices: Sequence[int]) -> Factors:
        return HeldFactors(self._tensor[list(indices)])

    def single(self, index: int) -> Tensor:
        return self._tensor[index]


class StoredFactors(Factors):
    """Factors in files, read again by every pass over them: from a local file, that is cheaper than keeping.

    Raises SourceError and FormatError where a file ends before it should.
    """

    def __init__(self, index: TensorIndex, names: Sequence[str], *, wide: bool, scratch: Scratch) -> None:
        """Tensors of one shape and dtype, (d, r, 1…), or (r, d…) where they are `wide`."""
        first, *rest = index[names[0]].shape
        across = torch.Size(rest).numel()
        self.shape = (len(names), across, first) if wide else (len(names), first, across)
        self.scratch = scratch
        self.index, self.names, self.wide = index, names, wide
        self.dtype = torch_dtype(index[names[0]].dtype)

    def blocks(self) -> Iterator[tuple[slice, slice, Tensor]]:
        _, depth, rank = self.shape
        for some, rows in _blocks(self.shape):
            if not self.wide:
                shape = (some.stop - some.start, rows.stop - rows.start, rank)
                block, memory = self.scratch.take_with_bytes(shape, self.dtype)
                self.index.read_each(self.names[some], memory, rows.start * rank * self.dtype.itemsize)
                yield some, rows, block
                continue
            if rows.start == 0:  # the rows of a wide tensor lie apart: it is read whole
                shape = (some.stop - some.start, rank, depth)
                whole, memory = self.scratch.take_with_bytes(shape, self.dtype)
                self.index.read_each(self.names[some], memory)
            yield some, rows, whole.mT[:, rows]

    def chosen(self, indices: Sequence[int]) -> Factors:
        names = [self.names[index] for index in indices]
        return StoredFactors(self.index, names, wide=self.wide, scratch=self.scratch)

    def single(self, index: int) -> Tensor:
        factor = self.index.read(self.names[index]).flatten(1)
        return factor.mT if self.wide else factor

    def held(self) -> HeldFactors:
        """The same factors read once and kept, for files that are slow to read."""
        n, depth, rank = self.shape
        whole = torch.empty((n, rank, depth) if self.wide else (n, depth, rank), dtype=self.dtype)
        self.index.read_each(self.names, whole.view(-1).view(torch.uint8).numpy().data)
        return HeldFactors(whole.mT if self.wide else whole)


def _blocks(shape: tuple[int, int, int]) -> Iterator[tuple[slice, slice]]:
    """Several modules whole, or one module's rows from the top."""
    n, depth, rank = shape
    modules = max(1, BLOCK_ELEMENTS // max(1, depth * rank))
    step = depth if depth * rank <= BLOCK_ELEMENTS else max(1, BLOCK_ELEMENTS // rank)
    for first in range(0, n, modules):
        for start in range(0, depth, step):
            yield slice(first, min(n, first + modules)), slice(start, min(depth, start + step))
