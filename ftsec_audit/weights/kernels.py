"""Gram matrices, spectra and moments in one pass each (kernels.c), where a compiler was at hand.

torch has no product of bfloat16 that is accumulated in float32: both factors are converted first; a change
is converted, subtracted and squared in a pass each; and small matrices are decomposed one by one. What was
not built, or does not lie in memory as it should, is left to torch. Sums are good to some 1e-6 of what is
added up, spectra to what LAPACK makes of them.
"""

from __future__ import annotations

import ctypes
import importlib.util
from array import array
from collections.abc import Sequence
from functools import cache
from itertools import chain
from typing import NamedTuple

import torch
from torch import Tensor

_LANES, _TILE, _STRIP, _WIDE = 16, 4, 512, 8
"""As in kernels.c."""
_OF_TILE = _TILE * _TILE * _LANES
_MOST_RANKS = 128
"""Beyond, a library is as fast, and what lies between would not fit the cache."""
_POINTER, _SIZE = ctypes.c_void_p, ctypes.c_ssize_t
_FUNCTIONS = {
    "add_grams": (_POINTER, _POINTER, _SIZE, _SIZE, _POINTER, _POINTER, _POINTER),
    "core_energies": (_POINTER, _POINTER, _SIZE, _SIZE, _POINTER, _POINTER, _POINTER),
    "difference": (_POINTER, _POINTER, _SIZE, _POINTER),
    "moments": (*(_POINTER, _POINTER, _SIZE, _SIZE), *(_POINTER, _POINTER, _POINTER, _POINTER)),
}


@cache
def library() -> ctypes.CDLL | None:
    """What was built beside this file; None where it was not."""
    found = importlib.util.find_spec("ftsec_audit.weights._kernels")
    try:
        opened = ctypes.CDLL(found.origin) if found and found.origin else None
        for name, arguments in _FUNCTIONS.items() if opened else ():
            function = getattr(opened, name)
            function.argtypes, function.restype = arguments, None
    except (OSError, AttributeError):  # made for another machine
        return None
    return opened


def multiplies(dtype: torch.dtype, rank: int, *, by_columns: bool) -> bool:
    """Whether Gram matrices of such factors are taken: (r, d) in memory `by_columns`, (d, r) otherwise."""
    if dtype != torch.bfloat16 or not 0 < rank <= _MOST_RANKS or library() is None:
        return False
    return rank % _TILE == 0 if by_columns else rank % _LANES == 0 or _LANES % rank == 0


def room(rank: int) -> Tensor:
    """What `add_grams` writes to on its way."""
    return torch.empty(_room(rank))


def _room(rank: int) -> int:
    tiles = rank // _TILE * (rank // _TILE + 1) // 2
    return rank * _STRIP + tiles * _OF_TILE


def add_grams(
    memory: Tensor, factors: Sequence[tuple[int, int, int, int]], sums: Tensor, room: Tensor
) -> None:
    """Adds XᵀX of each factor X (d, r) in `memory`, 1-d, to a slice of `sums`, contiguous float32 (n, r, r).

    Of each factor: the number of its first value, d, the distance of its columns in memory or 0 where its
    rows follow one another, and the number of its sum. For what `multiplies` affirms. Raises IndexError
    where a factor or a sum is not there.
    """
    (n, rank, _), values = sums.shape, memory.numel()
    for start, depth, step, which in factors:
        end = start + ((rank - 1) * step + depth if step else rank * depth)
        if start < 0 or depth < 0 or step < 0 or end > values or not 0 <= which < n:
            raise IndexError("a factor lies outside the memory, or its sum does")
    _add_grams(memory.data_ptr(), factors, sums, room)


def add_gram(block: Tensor, sums: Tensor) -> bool:
    """Adds XᵀX of each (d, r) slice to `sums`, contiguous float32 (n, r, r); False where torch has to."""
    n, depth, rank = block.shape
    to_next, to_row, step = block.stride()
    by_columns = rank > 1 and to_row == 1 and step >= depth
    if not n * depth or not multiplies(block.dtype, rank, by_columns=by_columns):
        return False
    if not by_columns and not block[0].is_contiguous():
        return False
    factors = [(k * to_next, depth, step if by_columns else 0, k) for k in range(n)]
    _add_grams(block.data_ptr(), factors, sums, room(rank))
    return True


def _add_grams(memory: int, factors: Sequence[tuple[int, int, int, int]], sums: Tensor, room: Tensor) -> None:
    rank = sums.shape[1]
    if room.numel() < _room(rank):
        raise ValueError(f"too little room for rank {rank}")
    described = array("q", chain.from_iterable(factors))
    _call(
        *("add_grams", memory, described.buffer_info()[0], len(factors), rank, sums.data_ptr()),
        *(room.data_ptr(), room.data_ptr() + rank * _STRIP * room.itemsize),
    )


def core_energies(left_gram: Tensor, right_gram: Tensor) -> tuple[Tensor, Tensor] | None:
    """σ² of each BA from BᵀB and AAᵀ, float64 (n, r, r) each: (n, r) in no order, and bool (n,).

    False where BᵀB is singular or anything is not finite: no σ² then. None where torch has to do it.
    """
    n, rank, _ = left_gram.shape
    grams = [left_gram, right_gram]
    if (
        library() is None
        or not n
        or not 0 < rank <= _MOST_RANKS
        or {gram.dtype for gram in grams} != {torch.float64}
    ):
        return None
    count = max(n, _WIDE)
    if n < count:  # so many are looked at side by side
        grams = [torch.cat([gram, gram[:1].expand(count - n, rank, rank)]) for gram in grams]
    left_gram, right_gram = (gram.contiguous() for gram in grams)
    energies, found = torch.empty(count, rank, dtype=torch.float64), torch.empty(count, dtype=torch.bool)
    room = torch.empty((2 * rank + 4) * rank * _WIDE, dtype=torch.float64)
    _call(
        *("core_energies", left_gram.data_ptr(), right_gram.data_ptr(), count, rank),
        *(energies.data_ptr(), found.data_ptr(), room.data_ptr()),
    )
    return energies[:n], found[:n]


def difference(after: Tensor, before: Tensor, out: Tensor) -> bool:
    """after − before into `out`, contiguous float32 of the same shape; False where torch has to do it."""
    if not _fit(after, before) or out.numel() != after.numel():
        return False
    _call("difference", after.data_ptr(), before.data_ptr(), after.numel(), out.data_ptr())
    return True


class Sums(NamedTuple):
    """Of one block of a change, (k, columns)."""

    by_row: Tensor
    """Σx², float64 (k,)."""
    changed: Tensor
    """Whether any entry is not zero, bool (k,)."""
    by_column: Tensor | None
    """Σx², float32 (columns,)."""
    fourth: float
    """Σx⁴."""
    before: float
    """Σx² of what was there before."""


def moments(after: Tensor, before: Tensor | None, *, with_columns: bool = False) -> Sums | None:
    """Of after − before (or `after`), (k, columns) each; None where torch has to do it."""
    if not after.numel() or not _fit(after, before):
        return None
    rows, columns = after.shape
    by_row, changed = torch.empty(rows, dtype=torch.float64), torch.empty(rows, dtype=torch.bool)
    by_column = torch.zeros(columns) if with_columns else None
    sums = torch.empty(2, dtype=torch.float64)
    _call(
        *("moments", after.data_ptr(), None if before is None else before.data_ptr(), rows, columns),
        *(by_row.data_ptr(), changed.data_ptr()),
        *(None if by_column is None else by_column.data_ptr(), sums.data_ptr()),
    )
    return Sums(by_row, changed, by_column, *sums.tolist())


def _fit(after: Tensor, before: Tensor | None) -> bool:
    """Whether both can be read from the first to the last of as many values."""
    both = (after,) if before is None else (after, before)
    return library() is not None and all(
        one.dtype == torch.bfloat16 and one.is_contiguous() and one.shape == after.shape for one in both
    )


def _call(name: str, *arguments: int | None) -> None:
    getattr(library(), name)(*arguments)
