"""Weights in eight bits with one scale a row, as bitsandbytes stores them: read as numbers, and compared.

W ≈ Q·s/127 with Q whole in −127..127 and s = max|W| of its row, rounded to nearest (LLM.int8,
arXiv:2208.07339). A weight in floats that rounds to Q on that grid is what Q was made of, as far as anybody
can tell from Q.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ftsec_audit.errors import Unsupported
from ftsec_audit.formats.tensors import TensorIndex
from ftsec_audit.weights.moments import BLOCK_ELEMENTS
from ftsec_audit.weights.packed import INT8_ROWS, Packed
from ftsec_audit.weights.stored import StoredPair, StoredTensor

_LEVELS = 127.0
_SLACK = 1 / 16
"""Steps beyond half of one within which a weight still counts as rounded to that number.

Quantisers round to float16 first: an entry at the end of its row and the scale are each off by up to 127·2⁻¹²
of a step.
"""
_SAME_SCALE = 2.0**-10
"""Relative difference of a scale and its row's largest entry, at least: both are rounded to float16."""


@dataclass(frozen=True)
class Int8Rows(StoredTensor):
    """The matrix that such a weight stands for, float32 (out, in); `name` is the tensor of whole numbers."""

    scales: str
    """The tensor with s, one a row."""

    @classmethod
    def of(cls, index: TensorIndex, weight: Packed) -> Int8Rows:
        """Raises Unsupported where it is another scheme, or its tensors do not fit together."""
        numbers, *others = weight.tensors
        scales = next((name for name in others if name.endswith(".SCB")), "")
        shape = index[numbers].shape
        if weight.scheme != INT8_ROWS or len(shape) != 2:
            raise Unsupported(f"packed ({weight.scheme}), which is not decoded")
        if index[scales].shape != shape[:1] or index[scales].dtype not in ("F32", "F16", "BF16"):
            stored = f"{list(index[scales].shape)} scales of {index[scales].dtype}"
            raise Unsupported(f"has {stored} for {shape[0]} rows")
        if shape[1] > BLOCK_ELEMENTS:
            raise Unsupported("its rows are longer than a block")
        for name in others:
            if name.endswith(".weight_format") and (index[name].numel != 1 or index.read(name).item() != 0):
                raise Unsupported("its numbers are not stored row by row")
        return cls(index, numbers, scales)

    @property
    def dtype(self) -> torch.dtype:
        return torch.float32

    @cached_property
    def steps(self) -> Tensor:
        """s/127 of every row, float32 (out, 1)."""
        return self.index.read(self.scales).float()[:, None] / _LEVELS

    def blocks(self, elements: int) -> Iterator[Tensor]:
        start = 0
        for numbers in self.index.blocks(self.name, elements):  # a byte each
            yield numbers.float() * self.steps[start : start + len(numbers)]
            start += len(numbers)

    def between(self, start: int, stop: int) -> Tensor:
        return self.index.read_rows(self.name, start, stop).float() * self.steps[start:stop]

    def rows(self, indices: Sequence[int]) -> Tensor:
        return super().rows(indices) * self.steps[list(indices)]


class GridPair(StoredPair):
    """Whole numbers on the one side, floats on the other: their difference on the grid of the whole numbers.

    Where a scale is the largest entry of the other side's row, the floats are rounded to the grid first: the
    same whole numbers are no change, and any other change is known to within a step. Where it is not, nobody
    rounded that row to this grid, and the change is the difference of the values.
    """

    approximation = "to within a step of its int8 grid, 1/127 of the largest entry of the row"

    def __init__(self, after: StoredTensor, before: StoredTensor) -> None:
        super().__init__(after, before)
        self._floats, self._sign = (before, 1.0) if isinstance(after, Int8Rows) else (after, -1.0)
        grid = after if isinstance(after, Int8Rows) else before
        assert isinstance(grid, Int8Rows)
        self._steps = grid.steps

    def blocks(self) -> Iterator[tuple[int, Tensor, Tensor | None]]:
        for start, after, before in super().blocks():
            assert before is not None
            yield start, after, self._settled(after, before, self._steps[start : start + len(after)])

    def rows(self, indices: Sequence[int]) -> tuple[Tensor, Tensor | None]:
        after, before = super().rows(indices)
        assert before is not None
        return after, self._settled(after, before, self._steps[list(indices)])

    def is_unchanged(self) -> bool:
        if self._before is None or self.after.shape != self._before.shape:
            return False
        return all(
            before is not None and bool((after.float() == before).all()) for _, after, before in self.blocks()
        )

    def _settled(self, after: Tensor, before: Tensor, steps: Tensor) -> Tensor:
        """What stands for `before`: `after` minus the change. Float32 (k, in); steps (k, 1)."""
        grid, floats = (after, before.float()) if self._sign > 0 else (before, after.float())
        change = grid - floats
        tolerance = max(_SAME_SCALE, torch.finfo(self._floats.dtype).eps / 2)
        rounded = (_largest(floats) / (_LEVELS * steps) - 1).abs() <= tolerance  # (k, 1); False for NaN
        reach = (0.5 + _SLACK) * steps
        if bool((rounded & (_largest(change) <= reach)).all()):
            return after.float()
        numbers = (grid / steps).round()
        nearest = torch.where(change.abs() <= reach, numbers, (floats / steps).round())
        change = torch.where(rounded, (numbers - nearest) * steps, change)
        return after.float() - self._sign * change


def _largest(rows: Tensor) -> Tensor:
    """The largest magnitude of every row, (k, 1)."""
    return rows.abs().amax(1, keepdim=True)  # ten times faster than aminmax along rows


def pair(after: StoredTensor, before: StoredTensor) -> StoredPair:
    """The two, on the grid of the one that has one."""
    mixed = isinstance(after, Int8Rows) != isinstance(before, Int8Rows)
    return GridPair(after, before) if mixed else StoredPair(after, before)
