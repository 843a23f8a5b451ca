"""Arrays that joblib writes into a pickle stream: how many bytes follow the wrapper, and where.

Source: joblib/numpy_pickle.py (NumpyArrayWrapper.write_array). After the BUILD of the wrapper come an
optional padding byte count with its padding, then the raw array; an object array is a pickle of its own.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable

from ftsec_audit.files import ByteReader
from ftsec_audit.formats.pickle_values import Call, Global, PickledDict

_WRAPPER = "NumpyArrayWrapper"
_MODULES = ("joblib.numpy_pickle", "sklearn.externals.joblib.numpy_pickle")
_SIMPLE = re.compile(r"([?bBhHiIlLqQefdgFDGSUVMmOuc])(\d{1,10})\Z")

FollowNested = Callable[[int], int]
"""Given where a nested stream begins, follows it and returns where it ends."""


def data_end(call: Call, reader: ByteReader, offset: int, end: int, follow: FollowNested) -> int:
    """Where the stream goes on after the BUILD of `call` that ends at `offset`."""
    if not any(call.is_to(module, _WRAPPER) for module in _MODULES) or not call.states:
        return offset
    state = call.states[-1]
    if not isinstance(state, PickledDict) or not isinstance(shape := state.get("shape"), tuple):
        return offset
    if not all(isinstance(extent, int) and 0 <= extent < 1 << 48 for extent in shape) or len(shape) > 64:
        return offset
    itemsize = _itemsize(state.get("dtype"))
    if itemsize is None:
        return offset
    if itemsize == 0:
        return follow(offset)
    if isinstance(state.get("numpy_array_alignment_bytes"), int) and offset < end:
        offset += 1 + reader.read_at(offset, 1)[0]
    return offset + math.prod(extent for extent in shape if isinstance(extent, int)) * itemsize


def _itemsize(dtype: object) -> int | None:
    """Bytes per element of a pickled `numpy.dtype`; 0 when its elements are objects."""
    if not isinstance(dtype, Call) or dtype.function != Global("numpy", "dtype"):
        return None
    args = dtype.arguments()
    match = _SIMPLE.match(args[0]) if args and isinstance(args[0], str) else None
    if match is None:
        return None
    if match[1] == "O" or _has_object_flag(dtype):
        return 0
    return int(match[2]) * (4 if match[1] == "U" else 1)


def _has_object_flag(dtype: Call) -> bool:
    """Structured dtypes carry numpy's item flags last in their state; bit 0 says that they hold objects."""
    state = dtype.states[-1] if dtype.states else None
    flags = state[8] if isinstance(state, tuple) and len(state) > 8 else 0
    return isinstance(flags, int) and bool(flags & 1)
