"""Tensors in files as sources of blocks, alone or against the base's, and whether the two are the same."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ftsec_audit.errors import Unsupported
from ftsec_audit.formats.tensors import TensorIndex, torch_dtype
from ftsec_audit.weights.moments import BLOCK_ELEMENTS, Source

_WHOLE_ROWS = 64
"""Requests for up to this many rows read those rows alone; more read the tensor once."""


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of a file, seen as a matrix."""

    index: TensorIndex
    name: str

    @property
    def stored_shape(self) -> tuple[int, ...]:
        return self.index[self.name].shape

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns): the first axis against all others; one row where there is one axis or none.

        One row too when rows are longer than a block.
        """
        shape = self.stored_shape
        columns = math.prod(shape[1:])
        if len(shape) < 2 or columns > BLOCK_ELEMENTS:
            return 1, math.prod(shape)
        return shape[0], columns

    @property
    def dtype(self) -> torch.dtype:
        """Raises Unsupported for what has no real numbers in it or none that torch can read."""
        dtype = torch_dtype(self.index[self.name].dtype)
        if dtype.is_complex:
            raise Unsupported("complex values are not read")
        return dtype

    def blocks(self, elements: int) -> Iterator[Tensor]:
        """The matrix from the top in blocks (k, columns), or pieces (1, k) of its only row."""
        rows, columns = self.shape
        for block in self.index.blocks(self.name, elements * self.dtype.itemsize):
            if rows > 1 and block.dim() == 2:
                yield block
            else:
                yield block.reshape(1 if rows == 1 else -1, columns if rows > 1 else block.numel())

    def between(self, start: int, stop: int) -> Tensor:
        """Rows `start:stop` in their own dtype, clipped as a slice is."""
        return self.index.read_rows(self.name, start, stop)

    def rows(self, indices: Sequence[int]) -> Tensor:
        """Single rows by number, float32 (k, columns)."""
        if len(self.index[self.name].shape) < 2:
            raise IndexError("a vector has no rows")
        read = [self.index.read_rows(self.name, index, index + 1).float().flatten() for index in indices]
        if short := [index for index, row in zip(indices, read, strict=True) if index < 0 or not row.numel()]:
            raise IndexError(f"no row {short[0]} in a matrix of {self.shape[0]}")
        return torch.stack(read) if read else torch.zeros(0, self.shape[1])


class StoredPair(Source):
    """A tensor of the subject and that of its base, or nothing; the rows that both have."""

    approximation = ""
    """How far the change may be from that of the numbers before they were rounded; empty when it is exact."""

    def __init__(self, after: StoredTensor, before: StoredTensor | None = None) -> None:
        self.after = after
        self._before = before
        rows, columns = after.shape
        self.shape = (rows if before is None else min(rows, before.shape[0]), columns)

    def blocks(self) -> Iterator[tuple[int, Tensor, Tensor | None]]:
        start = 0
        for after, before in self._pairs(BLOCK_ELEMENTS):
            rows = after.shape[0] if before is None else min(after.shape[0], before.shape[0])
            if before is None or after.shape == before.shape:
                yield start, after, before
            else:
                yield start, after[:rows], before[:rows]
            start += rows if self.shape[0] > 1 else 0

    def beyond(self) -> Iterator[Tensor]:
        step = max(1, BLOCK_ELEMENTS // max(1, self.shape[1]))
        for start in range(self.shape[0], self.after.shape[0], step):
            yield self.after.between(start, start + step)

    def rows(self, indices: Sequence[int]) -> tuple[Tensor, Tensor | None]:
        if len(indices) > _WHOLE_ROWS:
            return super().rows(indices)
        return self.after.rows(indices), self._before.rows(indices) if self._before else None

    def is_unchanged(self) -> bool:
        """Whether all rows of both are equal bit for bit, or after rounding to the coarser of two dtypes.

        Reads no further than the first block that differs.
        """
        if self._before is None or self.after.shape != self._before.shape:
            return False
        coarse = min(self.after.dtype, self._before.dtype, key=lambda dtype: dtype.itemsize)
        pairs = self._pairs(BLOCK_ELEMENTS)
        return all(_equal(after, before, coarse) for after, before in pairs if before is not None)

    def _pairs(self, elements: int) -> Iterator[tuple[Tensor, Tensor | None]]:
        after = self.after.blocks(elements)
        if self._before is None:
            yield from ((block, None) for block in after)
        else:
            for new, old in zip(after, self._before.blocks(elements), strict=False):
                if self.shape[0] == 1 and len(new) != len(old):
                    raise Unsupported("the base stores it in an order that cannot be streamed")
                yield new, old


def _equal(after: Tensor, before: Tensor, coarse: torch.dtype) -> bool:
    if after.dtype != before.dtype:
        after, before = after.to(coarse), before.to(coarse)
    # As bits: NaN equals NaN here, and 0 does not equal −0. Eight bytes at a time, which numpy does fastest.
    bits = torch.int64 if after.nbytes % 8 == 0 else torch.uint8
    first, second = (tensor.flatten().view(bits).numpy() for tensor in (after, before))
    return bool((first == second).all())
