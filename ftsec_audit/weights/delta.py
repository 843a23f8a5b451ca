"""ΔW of one module or tensor: what it is called, what kind of change it is, and its statistics."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

import torch
from torch import Tensor

from ftsec_audit.contracts import Subject
from ftsec_audit.errors import NotApplicable, Unsupported
from ftsec_audit.weights.change import Change
from ftsec_audit.weights.dense import Dense
from ftsec_audit.weights.int8_rows import Int8Rows
from ftsec_audit.weights.moments import Moments, Source
from ftsec_audit.weights.multiple import Multiple, nearest_multiple
from ftsec_audit.weights.named_weights import NamedWeights
from ftsec_audit.weights.naming import Category, category_of, has_token_rows, layer_of, role_of
from ftsec_audit.weights.stored import StoredPair
from ftsec_audit.weights.stored_columns import columns
from ftsec_audit.weights.token_space import TokenSpace


class DeltaKind(StrEnum):
    """In which form a change is known."""

    LOW_RANK = "low-rank"
    """Exact factors of the LoRA family; no base needed."""
    DENSE = "dense"
    """The difference of a saved matrix and the base's."""
    FULL = "full"
    """A saved matrix without anything to compare it with: its statistics are its own."""
    VECTOR = "vector"
    """A bias, a norm, a rescaling: the difference to the base where there is one."""
    ROWS = "rows"
    """Some rows of an embedding; the change is the matrix of these rows alone."""
    IDENTICAL = "identical"
    """Bit for bit the base's, or equal once both are rounded to the coarser of the two dtypes or grids."""
    ADDED = "added"
    """A tensor of a checkpoint that its base does not have."""
    MISSING = "missing"
    """A tensor of the base that the checkpoint does not have."""
    UNREADABLE = "unreadable"
    """There, but not read: `reason` says why."""


@dataclass(frozen=True)
class ChangedRows:
    """Rows that differ from the base in any bit of any value."""

    indices: Tensor
    """Row numbers in the whole matrix, ascending, int64 (k,)."""
    norms: Tensor
    """‖W′ᵢ − Wᵢ‖ of each, float64 (k,); of trained rows without a base, their own norms."""
    compared: int
    """How many rows were compared."""


@dataclass(kw_only=True, eq=False)
class Delta:
    """The change of one module. Every statistic is computed when first asked for, then kept.

    Not to be changed once the stream has handed it out, which fills in what it knows of the whole subject.

    Orientation is canonical, (out, in), whatever the file's. Numbers are NaN where entries are not finite.
    Asking a kind for what it does not have raises NotApplicable, or Unsupported when the values could not
    be read; both carry the reason.
    """

    name: str
    """Module without wrappers' prefixes and final `.weight`; unique within a subject."""
    kind: DeltaKind
    shape: tuple[int, ...]
    """(out, in) of the change for matrices; the stored shape otherwise."""
    tensors: tuple[str, ...]
    """The tensors of the subject's files that it is made of, as the files spell them."""
    file: str = ""
    """The file the first of them lies in."""
    n_layers: int = 0
    declared: bool = True
    """Whether the adapter's configuration declares a change here; True for checkpoints."""
    scale: float = 1.0
    """The factor before the product of the factors, as the method defines it."""
    rank: int | None = None
    reason: str = ""
    """Why it is unreadable, or why it could not be compared with the base."""
    approximation: str = ""
    """What `change` leaves out of the exact ΔW; empty when it is exact."""
    extra_rows: int = 0
    """Rows that the base does not have (negative: rows of the base that the subject does not have)."""
    row_numbers: tuple[int, ...] | None = None
    """For ROWS: which rows of the whole matrix the change consists of."""
    change: Change | None = None
    before: Source | None = None
    """The base's own matrix, where it is known and not part of `change`."""
    tokens: TokenSpace | None = None
    """The vocabulary of the base, or of a checkpoint without a base; None where there is neither."""
    parent: NamedWeights | None = None
    """The tensors of the unaligned model that the base was made from, where it is named."""
    subject: Subject | None = None
    """Whose change it is: for its small files, such as the tokenizer's. Set by the stream."""

    @property
    def role(self) -> str:
        """The module type, e.g. `q_proj`."""
        return role_of(self.name)

    @property
    def layer(self) -> int | None:
        return layer_of(self.name)

    @property
    def category(self) -> Category:
        return category_of(self.name)

    @property
    def has_token_rows(self) -> bool:
        """Whether every row belongs to one token of the vocabulary."""
        return len(self.shape) == 2 and has_token_rows(self.name)

    def finite(self) -> bool:
        """Whether every number that the subject stores here is finite; IDENTICAL is as finite as its base."""
        return self.change.finite() if self.change else True

    def is_zero(self) -> bool:
        """Whether nothing changes; for FULL, whether the tensor itself is zero."""
        if self.kind is DeltaKind.IDENTICAL:
            return True
        return self._measured.is_zero()

    def frobenius_norm(self) -> float:
        return 0.0 if self.kind is DeltaKind.IDENTICAL else self._measured.frobenius_norm()

    def singular_values(self) -> Tensor:
        """Descending, float64; all of them for factored and small changes, else the leading 16."""
        return self._measured.singular_values()

    def singular_vectors(self) -> tuple[Tensor, Tensor]:
        """U (out, k) and V (in, k) that go with `singular_values`."""
        return self._measured.singular_vectors()

    def top_singular_vectors(self) -> tuple[Tensor, Tensor]:
        """The leading left (out,) and right (in,) singular vectors: much cheaper than all of them."""
        return self._measured.top_singular_vectors()

    def entry_kurtosis(self) -> float:
        """N·Σx⁴/(Σx²)² over all entries, not centred: 3 for Gaussian noise."""
        return self._measured.entry_kurtosis()

    def row_norms(self) -> Tensor:
        """‖ΔWᵢ‖ of every output row, float64 (out,)."""
        return self._measured.row_norms()

    def base_norm(self) -> float | None:
        """‖W‖_F of the base's matrix, None where there is no base; reads it when it was not read yet."""
        if self.before is not None:
            return self._before_norm
        return self.change.base_norm() if isinstance(self.change, Dense) else None

    def nearest_multiple(self) -> Multiple | None:
        """Which multiple of the base's tensor this one is nearest to; None where that says nothing."""
        return self._nearest_multiple

    def changed_rows(self) -> ChangedRows:
        """Which rows changed and by how much; raises NotApplicable for whole tensors without a base."""
        if self.kind is DeltaKind.IDENTICAL:
            nothing = torch.zeros(0)
            return ChangedRows(nothing.long(), nothing.double(), self.shape[0] if self.shape else 0)
        if self.kind in (DeltaKind.FULL, DeltaKind.ADDED):
            raise NotApplicable(f"{self.name} has no base to be compared with")
        norms = self._measured.row_norms()
        change = self._measured
        if isinstance(change, Dense) and not change.transposed:
            indices = change.moments.changed.nonzero()[:, 0]
        else:
            indices = norms.nonzero()[:, 0]  # NaN counts as changed
        norms = norms[indices]
        if self.row_numbers is not None:
            indices = torch.tensor(self.row_numbers, dtype=torch.int64)[indices]
        return ChangedRows(indices, norms, change.shape[0])

    def rows(self, indices: Sequence[int]) -> tuple[Tensor, Tensor | None]:
        """The given rows after and before the change, float32 (k, in); None without a base.

        Rows are numbered as in `changed_rows`. Raises NotApplicable for factored changes, whose rows
        after the change are not stored, and IndexError for rows that not both have.
        """
        change = self._dense
        if self.row_numbers is not None:
            positions = {number: position for position, number in enumerate(self.row_numbers)}
            indices = [positions.get(index, -1) for index in indices]
        return columns(change.source, indices) if change.transposed else change.source.rows(indices)

    def stored_rows(self, indices: Sequence[int]) -> tuple[Tensor, Tensor | None]:
        """Rows as the file has them, whatever the orientation: cheap, where any will do. Raises as `rows`."""
        return self._dense.source.rows(indices)

    def stored_blocks(self) -> Iterator[tuple[int, Tensor]]:
        """(first row, rows after the change (k, columns) as float32) block by block, as the file has them.

        Of a vocabulary that grew, the rows that the base has too. Raises NotApplicable for factored changes,
        and Unsupported where a row is longer than a block.
        """
        if self._dense.source.shape[0] == 1:
            raise Unsupported("its rows are too long to be read one by one", where=self.name)
        for start, after, _ in self._dense.source.blocks():
            yield start, after.float()

    @property
    def stored_dtype(self) -> torch.dtype:
        """That of the subject's values; raises as `stored_blocks` does. Reads a block."""
        return next((after.dtype for _, after, _ in self._dense.source.blocks()), torch.float32)

    @property
    def is_on_a_grid(self) -> bool:
        """Whether the subject stores whole numbers and their scales; raises as `stored_blocks` does."""
        source = self._dense.source
        return isinstance(source, StoredPair) and isinstance(source.after, Int8Rows)

    @property
    def stored_shape(self) -> tuple[int, int]:
        """Rows and columns of what `stored_blocks` and `stored_rows` read."""
        return self._dense.source.shape

    @property
    def _dense(self) -> Dense:
        if not isinstance(self._measured, Dense):
            raise NotApplicable(f"{self.name} is stored as factors, not as rows")
        return self._measured

    @property
    def _measured(self) -> Change:
        if self.change is not None:
            return self.change
        if self.kind is DeltaKind.UNREADABLE:
            raise Unsupported(self.reason, where=self.name)
        raise NotApplicable(f"{self.name} is {self.kind.value}: there is no change to measure")

    @cached_property
    def _nearest_multiple(self) -> Multiple | None:
        return nearest_multiple(self._dense.source)

    @cached_property
    def _before_norm(self) -> float:
        assert self.before is not None
        energy = Moments.of(self.before).energy
        return math.sqrt(energy) if energy >= 0 else math.nan
