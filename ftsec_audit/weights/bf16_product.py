"""Gram matrices of bfloat16 factors on the matrix units of the CPU, accumulated and returned in float32.

torch rounds the product of two bfloat16 matrices to bfloat16, and converting both to float32 first costs
more than the product. The MKL inside torch's x86 wheels has the product that is wanted, as
`cblas_gemm_bf16bf16f32` of its documented C interface: products of bfloat16 are exact in float32, so only
the sum is rounded. It pays where the CPU has AMX tiles; on others it is slower than converting, and is not
used.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_CPU_FLAGS = Path("/proc/cpuinfo")
_FIRST_CPU = 1 << 13
"""Bytes of it that describe the first of the CPUs."""

_ROW_MAJOR, _AS_IT_IS, _TRANSPOSED = 101, 111, 112
# Integers are passed as 64 bits, which a library of 32-bit integers reads correctly on this architecture.
_ARGUMENTS: tuple[Any, ...] = (
    *([ctypes.c_long] * 6),
    *(ctypes.c_float, ctypes.c_void_p, ctypes.c_long, ctypes.c_void_p, ctypes.c_long),
    *(ctypes.c_float, ctypes.c_void_p, ctypes.c_long),
)

_Gemm = Callable[..., None]


@cache
def is_fast() -> bool:
    """Whether this CPU and this build of torch have it, and a trial comes out right."""
    if "amx_bf16" not in _cpu_flags() or _gemm() is None:
        return False
    trial = torch.arange(-24, 24).reshape(1, 8, 6).bfloat16()
    exact = trial.float().mT @ trial.float()
    return torch.equal(gram(trial), exact) and torch.equal(gram(trial.mT.contiguous().mT), exact)


def applies_to(block: Tensor) -> bool:
    """Whether `gram` takes this (n, d, r) tensor: bfloat16, and one of its last two axes contiguous."""
    return block.dtype == torch.bfloat16 and is_fast() and (_by_rows(block) or _by_columns(block))


def gram(block: Tensor) -> Tensor:
    """XᵀX of each (d, r) slice of a tensor that `applies_to`, float32 (n, r, r).

    Values below 1.2e-38 count as zero.
    """
    gemm = _gemm()
    assert gemm is not None
    n, depth, rank = block.shape
    by_rows = _by_rows(block)
    orders = (_TRANSPOSED, _AS_IT_IS) if by_rows else (_AS_IT_IS, _TRANSPOSED)
    leading = max(rank, block.stride(1)) if by_rows else max(depth, block.stride(2))
    product = torch.empty(n, rank, rank)
    source, target = block.data_ptr(), product.data_ptr()
    for _ in range(n):
        gemm(_ROW_MAJOR, *orders, rank, rank, depth, 1.0, source, leading, source, leading, 0.0, target, rank)
        source += block.stride(0) * block.itemsize
        target += rank * rank * product.itemsize
    return product


def _by_rows(block: Tensor) -> bool:
    return block.stride(2) == 1 and (block.stride(1) >= block.shape[2] or block.shape[1] == 1)


def _by_columns(block: Tensor) -> bool:
    return block.stride(1) == 1 and (block.stride(2) >= block.shape[1] or block.shape[2] == 1)


@cache
def _gemm() -> _Gemm | None:
    try:
        library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
        function = library.cblas_gemm_bf16bf16f32
    except (OSError, AttributeError):
        return None
    function.argtypes, function.restype = _ARGUMENTS, None
    found: _Gemm = function
    return found


def _cpu_flags() -> frozenset[str]:
    try:
        with _CPU_FLAGS.open(encoding="ascii", errors="replace") as file:
            return frozenset(file.read(_FIRST_CPU).split())
    except OSError:
        return frozenset()
