"""Changes that have no thin factors, made row by row from the base's matrix or from several factors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ftsec_audit.weights.moments import BLOCK_ELEMENTS, Source
from ftsec_audit.weights.stored import StoredTensor


@dataclass(frozen=True)
class BaseMatrix:
    """A base matrix in canonical orientation, streamed where the file has it that way."""

    stored: StoredTensor
    transposed: bool

    @property
    def shape(self) -> tuple[int, int]:
        rows, columns = self.stored.shape
        return (columns, rows) if self.transposed else (rows, columns)

    def blocks(self) -> Iterator[tuple[int, Tensor]]:
        """(first row, float32 rows)."""
        step = max(1, BLOCK_ELEMENTS // self.shape[1])
        if self.transposed:
            whole = self.stored.index.read(self.stored.name).float().mT
            yield from ((start, whole[start : start + step]) for start in range(0, len(whole), step))
            return
        start = 0
        for block in self.stored.blocks(BLOCK_ELEMENTS):
            yield start, block.float()
            start += len(block)


class DoraRows(Source):
    def __init__(self, weight: BaseMatrix, left: Tensor, right: Tensor, magnitude: Tensor) -> None:
        self.shape = weight.shape
        self._weight, self._left, self._right, self._magnitude = weight, left, right, magnitude

    def blocks(self) -> Iterator[tuple[int, Tensor, Tensor | None]]:
        for start, rows in self._weight.blocks():
            here = slice(start, start + len(rows))
            moved = rows + self._left[here] @ self._right
            moved *= (self._magnitude[here] / torch.linalg.vector_norm(moved, dim=1))[:, None]
            yield start, moved, rows


class RescaledRows(Source):
    def __init__(self, weight: BaseMatrix, factor: Tensor) -> None:
        self.shape = weight.shape
        self._weight, self._factor = weight, factor

    def blocks(self) -> Iterator[tuple[int, Tensor, Tensor | None]]:
        for start, rows in self._weight.blocks():
            by_rows = self._factor.shape[1] == 1
            factor = self._factor[start : start + len(rows)] if by_rows else self._factor
            yield start, rows * factor, rows


class HadamardRows(Source):
    def __init__(self, first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> None:
        self.shape = (first[0].shape[0], first[1].shape[1])
        self._first, self._second = first, second

    def blocks(self) -> Iterator[tuple[int, Tensor, Tensor | None]]:
        (b1, a1), (b2, a2) = self._first, self._second
        step = max(1, BLOCK_ELEMENTS // self.shape[1])
        for start in range(0, self.shape[0], step):
            here = slice(start, start + step)
            yield start, (b1[here] @ a1) * (b2[here] @ a2), None
