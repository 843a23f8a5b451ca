"""What can be asked of any change of a matrix, whatever form it is held in."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor


class Change(ABC):
    """A matrix ΔW (rows, columns), canonical orientation (out, in), known in some cheaper form.

    Every answer is computed when first asked for. Where entries are not finite, numbers are NaN.
    """

    shape: tuple[int, int]

    @abstractmethod
    def finite(self) -> bool:
        """Whether every stored number is finite."""

    @abstractmethod
    def frobenius_norm(self) -> float: ...

    @abstractmethod
    def singular_values(self) -> Tensor:
        """Descending, float64, at most as many as the rank or as are worth computing."""

    @abstractmethod
    def singular_vectors(self) -> tuple[Tensor, Tensor]:
        """U (rows, k) and V (columns, k) that go with `singular_values`, float64, orthonormal columns."""

    @abstractmethod
    def entry_kurtosis(self) -> float:
        """N·Σx⁴/(Σx²)² over all entries, not centred, not excess; 0 for a zero change."""

    @abstractmethod
    def row_norms(self) -> Tensor:
        """‖row‖ of every row, float64 (rows,)."""

    @abstractmethod
    def blocks(self, rows: int) -> Iterator[Tensor]:
        """ΔW itself, float32, in blocks of at most `rows` rows from the top."""

    def top_singular_vectors(self) -> tuple[Tensor, Tensor]:
        """The first columns of U and V alone, which is cheaper: (rows,) and (columns,)."""
        u, v = self.singular_vectors()
        return u[:, 0], v[:, 0]

    def is_zero(self) -> bool:
        return self.frobenius_norm() == 0

    def matrix(self) -> Tensor:
        """The whole of ΔW, float32. For small matrices."""
        return torch.cat(list(self.blocks(self.shape[0]))) if self.shape[0] else torch.zeros(self.shape)
