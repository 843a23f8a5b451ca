"""One projection out of a tensor that holds several side by side, seen as a tensor of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ftsec_audit.errors import Unsupported
from ftsec_audit.weights.moments import BLOCK_ELEMENTS
from ftsec_audit.weights.stored import StoredTensor

HELD_ELEMENTS = 1 << 24
"""Elements up to which a tensor that its model keeps transposed is held whole: 64 MB of float32."""


@dataclass(frozen=True)
class Runs:
    """Which outputs of a fused projection make one of its parts: `length` of every `period`, from `first` on.

    One run where the parts lie one after the other; one a head where each head has its own q, k and v.
    """

    first: int
    length: int
    period: int
    count: int

    def position(self, output: int) -> int:
        """Where the part's output of this number lies in the fused tensor."""
        return output // self.length * self.period + self.first + output % self.length

    def outputs(self) -> Tensor:
        """The numbers of all of them in the fused tensor, int64."""
        starts = torch.arange(self.count) * self.period + self.first
        return (starts[:, None] + torch.arange(self.length)).flatten()

    def between(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """The spans (first, end) of the fused tensor that hold the part's outputs `start:stop`."""
        while start < stop:
            end = min(stop, (start // self.length + 1) * self.length)
            at = self.position(start)
            yield at, at + end - start
            start = end


@dataclass(frozen=True)
class StoredPart(StoredTensor):
    """The outputs of one part, which are runs of rows, or of the entries of a bias. Reads those alone."""

    runs: Runs

    @property
    def stored_shape(self) -> tuple[int, ...]:
        return self.runs.count * self.runs.length, *self.index[self.name].shape[1:]

    def blocks(self, elements: int) -> Iterator[Tensor]:
        rows, columns = self.shape
        outputs, width = (rows, columns) if len(self.stored_shape) > 1 else (columns, 1)
        step = max(1, elements // max(1, width))
        for start in range(0, outputs, step):
            block = self.between(start, min(outputs, start + step))
            yield block if block.dim() > 1 else block[None]

    def between(self, start: int, stop: int) -> Tensor:
        pieces = [self.index.read_rows(self.name, *span) for span in self.runs.between(start, stop)]
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces)

    def rows(self, indices: Sequence[int]) -> Tensor:
        outputs = self.stored_shape[0]
        if outside := [index for index in indices if not 0 <= index < outputs]:
            raise IndexError(f"no row {outside[0]} in a matrix of {outputs}")
        return super().rows([self.runs.position(index) for index in indices])


@dataclass(frozen=True)
class TurnedPart(StoredPart):
    """The same of a matrix kept as (in, out): runs of columns, turned to (out, in). Held while it is read."""

    @property
    def stored_shape(self) -> tuple[int, ...]:
        return self.runs.count * self.runs.length, self.index[self.name].shape[0]

    def blocks(self, elements: int) -> Iterator[Tensor]:
        whole = self._whole()
        yield from whole.split(max(1, elements // max(1, whole.shape[1])))

    def between(self, start: int, stop: int) -> Tensor:
        return self._whole()[start:stop]

    def rows(self, indices: Sequence[int]) -> Tensor:
        return self._whole()[list(indices)].float()

    @classmethod
    def all_of(cls, stored: StoredTensor) -> TurnedPart:
        """A whole matrix that its model keeps as (in, out)."""
        outputs = stored.stored_shape[-1]
        return cls(stored.index, stored.name, Runs(0, outputs, outputs, 1))

    def _whole(self) -> Tensor:
        """(out, in), filled from blocks of the file's rows: the file's own order is never held beside it."""
        outputs, inputs = self.stored_shape
        if outputs * inputs > HELD_ELEMENTS:
            raise Unsupported("a transposed matrix of this size is not held in memory")
        whole = torch.empty(outputs, inputs, dtype=self.dtype)
        spans = list(self.runs.between(0, outputs))
        step = max(1, BLOCK_ELEMENTS // self.index[self.name].shape[1])
        for start in range(0, inputs, step):
            rows = self.index.read_rows(self.name, start, start + step)
            whole[:, start : start + step] = torch.cat([rows[:, first:end] for first, end in spans], dim=1).mT
        return whole
