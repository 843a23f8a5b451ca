"""Gram matrices and moments of bfloat16 in one pass each (kernels.c), where a compiler was at hand.

torch has no product of bfloat16 that is accumulated in float32: both factors are converted first; and a
change is converted, subtracted and squared in a pass each. What was not built, or does not lie in memory as
it should, is left to torch. Sums of either are good to some 1e-6 of what is added up.
"""

from __future__ import annotations

import ctypes
import importlib.util
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

_LANES, _TILE, _STRIP = 16, 4, 256
"""As in kernels.c."""
_OF_TILE = _TILE * _TILE * _LANES
_MOST_RANKS = 128
"""Beyond, a library's product is as fast, and what lies between would not fit the cache."""
_POINTER, _SIZE = ctypes.c_void_p, ctypes.c_ssize_t
_FUNCTIONS = {
    "gram_of_rows": (_POINTER, _SIZE, _SIZE, _SIZE, _POINTER),
    "gram_of_columns": (_POINTER, _SIZE, _SIZE, _SIZE, _SIZE, _POINTER, _POINTER, _POINTER),
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


def gram(block: Tensor) -> Tensor | None:
    """XᵀX of each (d, r) slice, float32 (n, r, r); None where torch has to do it."""
    n, depth, rank = block.shape
    if block.dtype != torch.bfloat16 or not n * depth or not 0 < rank <= _MOST_RANKS or library() is None:
        return None
    strides = block.stride()
    in_line = n == 1 or strides[0] == strides[2] * rank
    if rank > 1 and strides[1] == 1 and strides[2] >= depth and in_line:
        return _of_columns(block) if rank % _TILE == 0 else None
    if not block.is_contiguous():
        return None
    if rank % _LANES == 0:
        return _of_rows(block, depth, rank)
    together = _LANES // rank
    if _LANES % rank or depth % together:
        return None
    # Several short rows side by side: the sum of their own products lies on the diagonal.
    wide = _of_rows(block, depth // together, _LANES).view(n, together, rank, together, rank)
    return wide.diagonal(dim1=1, dim2=3).sum(-1)


def _of_rows(block: Tensor, depth: int, rank: int) -> Tensor:
    product = torch.zeros(len(block), rank, rank)
    _call("gram_of_rows", block.data_ptr(), len(block), depth, rank, product.data_ptr())
    return product


def _of_columns(block: Tensor) -> Tensor:
    n, depth, rank = block.shape
    tiles = rank // _TILE * (rank // _TILE + 1) // 2
    product = torch.empty(n, rank, rank)
    wide, sums = torch.empty(rank * _STRIP), torch.empty(tiles * _OF_TILE)
    _call(
        *("gram_of_columns", block.data_ptr(), n, depth, rank, block.stride(2)),
        *(product.data_ptr(), wide.data_ptr(), sums.data_ptr()),
    )
    return product


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
