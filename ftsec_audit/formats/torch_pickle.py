"""State dicts that `torch.save` wrote, indexed without unpickling.

The pickle is followed symbolically; of what it would call, only the functions of torch/_utils.py that
rebuild plain tensors are understood. Each tensor becomes an offset and strides into the file, or into an
inflated member. Laws: every element lies inside its storage; reading all tensors costs at most
`sharing` times the size of the file.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from ftsec_audit.errors import BudgetExceeded, FormatError, FtsecError, Unsupported
from ftsec_audit.files import ArtifactFile
from ftsec_audit.formats.pickle_values import Call, Global, PickledDict
from ftsec_audit.formats.tensors import (
    DTYPE_BITS,
    TORCH_NAMES,
    Problem,
    TensorEntry,
    contiguous_stride,
    span,
)
from ftsec_audit.formats.torch_archive import Archive, StorageId, open_archive

_DTYPES = {name: dtype for dtype, name in TORCH_NAMES.items()}
_WRAPPERS = ("state_dict", "model_state_dict", "model", "module")
"""Keys under which training loops put the state dict when they save more than that."""
_PARAMETERS = frozenset({"torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state"})
_TYPED = "torch._tensor._rebuild_from_type_v2"
_PLAIN_TYPES = frozenset({"torch.Tensor", "torch.nn.parameter.Parameter"})
_TENSORS = frozenset(
    {"torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor_v3"}
)
_V3_DTYPE = 6
_LAYERS = 8  # of wrapping around a tensor; two occur


@dataclass(frozen=True, kw_only=True)
class TorchLimits:
    """Bounds for one file."""

    tensors: int = 200_000
    dimensions: int = 64
    sharing: int = 64
    """How many times over, on average, tensors may claim the bytes of the file."""


@dataclass(frozen=True, kw_only=True)
class TorchIndex:
    """The tensors of a state dict, and what else was met on the way."""

    entries: tuple[TensorEntry, ...]
    problems: tuple[Problem, ...]


def index(file: ArtifactFile, *, limits: TorchLimits = TorchLimits()) -> list[TensorEntry]:
    """The readable tensors of a file; raises FormatError when there are none, else as `read_index`."""
    found = read_index(file, limits=limits)
    fatal = [problem for problem in found.problems if problem.fatal]
    if fatal and not found.entries:
        raise FormatError(f"no tensor can be read: {fatal[0].message}", where=file.path)
    return list(found.entries)


def read_index(file: ArtifactFile, *, limits: TorchLimits = TorchLimits()) -> TorchIndex:
    """Index a `.bin`, `.pt` or `.pth` file, whichever container it is.

    Raises FormatError, BudgetExceeded, SourceError, Unsupported (TorchScript, bare pickles).
    """
    archive = open_archive(file)
    problems: list[Problem] = []
    entries: dict[str, TensorEntry] = {}
    for count, (name, value) in enumerate(_state_dict(archive, problems)):
        if count >= limits.tensors:
            raise BudgetExceeded(f"more than {limits.tensors:,} entries", where=file.path)
        if isinstance(value, (PickledDict, list, tuple, str, bytes, int, float, type(None))):
            message = f"an ordinary {type(value).__name__} among the tensors"
            problems.append(Problem(code="not-a-tensor", message=message, file=file.path, tensor=name))
            continue
        try:
            entries[name] = _entry(name, value, archive, limits)
        except (FormatError, Unsupported, BudgetExceeded) as error:
            problems.append(_unreadable(file, name, error))
    if sum(entry.nbytes for entry in entries.values()) > limits.sharing * file.size:
        raise BudgetExceeded("the tensors share their storages too often to be read", where=file.path)
    ordered = sorted(entries.values(), key=lambda entry: (entry.file.path, entry.offset))
    return TorchIndex(entries=tuple(ordered), problems=tuple(problems))


def _unreadable(file: ArtifactFile, name: str, error: FtsecError) -> Problem:
    code = "unsupported-tensor" if isinstance(error, Unsupported) else "damaged-tensor"
    return Problem(code=code, message=error.what, file=file.path, tensor=name, fatal=True)


def _state_dict(archive: Archive, problems: list[Problem]) -> Iterator[tuple[str, object]]:
    """Names and values of the state dict, unwrapped from a training checkpoint where it is in one."""
    file = archive.file
    pairs = _pairs(archive.value)
    if pairs is None:
        raise FormatError(f"the pickle holds {_described(archive.value)}, not a state dict", where=file.path)
    if not any(_rebuilds_tensor(value) for _, value in pairs):
        for key, value in pairs:
            inner = _pairs(value)
            if key in _WRAPPERS and inner is not None:
                message = f"{len(pairs) - 1} entries beside the state dict were not read"
                problems.append(Problem(code="training-state", message=message, file=file.path))
                pairs = inner
                break
    counts = Counter(name for name, _ in pairs if isinstance(name, str))
    for name, value in pairs:
        if not isinstance(name, str):
            message = f"a key of the state dict is {_described(name)}, not a string"
            problems.append(Problem(code="odd-name", message=message, file=file.path))
            continue
        if counts[name] > 1:
            counts[name] = 0
            message = "the name is assigned more than once; the last assignment counts"
            problems.append(Problem(code="repeated-name", message=message, file=file.path, tensor=name))
        yield name, value


def _pairs(value: object) -> list[tuple[object, object]] | None:
    """The items of a dict or an ordered dict, or None."""
    if isinstance(value, PickledDict):
        return value.pairs
    if not isinstance(value, Call) or str(value.function) != "collections.OrderedDict":
        return None
    first = value.arguments()[0] if value.arguments() else []
    listed = first if isinstance(first, list) else []
    items = [tuple(item) for item in listed if isinstance(item, (list, tuple)) and len(item) == 2]
    return [*items, *value.pairs]


def _rebuilds_tensor(value: object) -> bool:
    known = _TENSORS | _PARAMETERS | {_TYPED}
    return isinstance(value, Call) and isinstance(value.function, Global) and str(value.function) in known


def _entry(name: str, value: object, archive: Archive, limits: TorchLimits) -> TensorEntry:
    """Where a tensor lies; raises FormatError, Unsupported."""
    function, args = _unwrapped(value)
    if len(args) < 4:
        raise FormatError(f"{function} with {len(args)} arguments")
    storage = StorageId.of(args[0])
    shape, stride = (_sizes(argument, limits) for argument in args[2:4])
    offset = args[1]
    if type(offset) is not int or offset < 0 or len(shape) != len(stride):
        raise FormatError("offset, shape and strides do not fit each other")
    dtype = storage.dtype
    if function.endswith("_v3"):
        dtype = _named_dtype(args)
    width = DTYPE_BITS[dtype] // 8
    capacity = storage.nbytes // width
    length = span(shape, stride)
    if offset + length > capacity:
        raise FormatError(f"elements {offset:,} to {offset + length:,} of a storage of {capacity:,}")
    if math.prod(shape) > capacity:
        raise Unsupported(f"{math.prod(shape):,} elements expanded from a storage of {capacity:,}")
    file, start = archive.locate(storage, dtype)
    plain = all(
        a == b for a, b, size in zip(stride, contiguous_stride(shape), shape, strict=True) if size > 1
    )
    return TensorEntry(
        name,
        dtype,
        shape,
        file,
        start + offset * width,
        length * width,
        None if plain or not length else stride,
    )


def _unwrapped(value: object) -> tuple[str, tuple[object, ...]]:
    """The function that rebuilds the tensor itself, and its arguments."""
    function, args = _called(value)
    for _ in range(_LAYERS):
        if function in _TENSORS:
            return function, args
        if function in _PARAMETERS and args:
            function, args = _called(args[0])
        elif function == _TYPED and len(args) > 2 and str(args[1]) in _PLAIN_TYPES:
            function, args = str(args[0]), args[2] if isinstance(args[2], tuple) else ()
        else:
            break
    raise Unsupported(f"rebuilt by {function[:80]}, which is not read")


def _called(value: object) -> tuple[str, tuple[object, ...]]:
    if isinstance(value, Call) and isinstance(value.function, Global):
        return str(value.function), value.arguments()
    return _described(value), ()


def _named_dtype(args: tuple[object, ...]) -> str:
    """The dtype that `_rebuild_tensor_v3` is given, in the spelling of safetensors."""
    named = args[_V3_DTYPE] if len(args) > _V3_DTYPE else None
    if isinstance(named, Global) and named.module == "torch" and named.name in _DTYPES:
        return _DTYPES[named.name]
    raise Unsupported("a tensor of an unknown dtype")


def _sizes(value: object, limits: TorchLimits) -> tuple[int, ...]:
    """A shape or strides."""
    if isinstance(value, Call) and value.is_to("torch", "Size") and value.arguments():
        value = value.arguments()[0]
    if not isinstance(value, (tuple, list)) or len(value) > limits.dimensions:
        raise FormatError("a shape or strides that are no short tuple")
    if not all(type(size) is int and 0 <= size < 1 << 63 for size in value):
        raise FormatError("a size or stride is not an integer from 0 to 2⁶³ - 1")
    return tuple(value)


def _described(value: object) -> str:
    """A short name for any value; it is never printed itself, for it may be endless."""
    if isinstance(value, Call):
        return (
            f"a call to {str(value.function)[:80]}"
            if isinstance(value.function, Global)
            else "a computed call"
        )
    return "nothing" if value is None else f"a {type(value).__name__}"
