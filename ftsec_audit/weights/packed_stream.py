"""Packed weights of a checkpoint against its base's: the same bits, the same values, or not read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ftsec_audit.errors import FormatError, Unsupported
from ftsec_audit.weights.comparison import compare
from ftsec_audit.weights.delta import Delta, DeltaKind
from ftsec_audit.weights.int8_rows import Int8Rows
from ftsec_audit.weights.named_weights import NamedWeights
from ftsec_audit.weights.packed import Packed
from ftsec_audit.weights.stored import StoredPair, StoredTensor
from ftsec_audit.weights.stored_part import TurnedPart


def packed_deltas(subject: NamedWeights, base: NamedWeights | None, n_layers: int) -> Iterator[Delta]:
    """One delta per packed weight, with all of its tensors."""
    met: set[str] = set()
    for weight in subject.packed.values():
        own = weight.module not in met and subject.named(weight.module) is None
        met.add(weight.module)
        entry = subject.index[weight.tensors[0]]
        yield Delta(
            name=weight.module if own else f"{entry.name} (packed)",
            tensors=weight.tensors,
            file=entry.file.path,
            n_layers=n_layers,
            **_against_base(subject, weight, base),
        )


def against_packed(
    after: StoredTensor, base: NamedWeights, packed: Packed, transposed: bool
) -> dict[str, Any]:
    """The fields of a delta of floats whose base's weight is packed; `transposed`: kept as (in, out)."""
    try:
        return _compared(_upright(after, transposed), Int8Rows.of(base.index, packed))
    except (FormatError, Unsupported) as error:
        return _unread(after.stored_shape, f"the base's is {error.what}")


def _against_base(subject: NamedWeights, weight: Packed, base: NamedWeights | None) -> dict[str, Any]:
    shape = subject.index[weight.tensors[0]].shape
    other = base.find_packed(weight.module) if base else None
    plain = base.find(weight.module) if base and other is None else None
    try:
        if base and other and _has_the_bits(subject, weight, base, other):
            return {"kind": DeltaKind.IDENTICAL, "shape": shape}
        after = Int8Rows.of(subject.index, weight)
        if base and other:
            return _compared(after, Int8Rows.of(base.index, other))
        if base and plain:
            return _compared(after, _upright(plain, base.transposed(weight.module)))
    except (FormatError, Unsupported) as error:
        return _unread(shape, f"{error.what}; it is not the base's" if other else error.what)
    return _unread(shape, f"packed ({weight.scheme}), and there is nothing to compare it with")


def _has_the_bits(subject: NamedWeights, weight: Packed, base: NamedWeights, other: Packed) -> bool:
    alike = other.scheme == weight.scheme and len(other.tensors) == len(weight.tensors)
    return alike and all(
        _same(StoredTensor(subject.index, one), StoredTensor(base.index, two))
        for one, two in zip(weight.tensors, other.tensors, strict=True)
    )


def _same(one: StoredTensor, other: StoredTensor) -> bool:
    alike = one.stored_shape == other.stored_shape and one.dtype == other.dtype
    return alike and StoredPair(one, other).is_unchanged()


def _upright(stored: StoredTensor, transposed: bool | None) -> StoredTensor:
    """As (out, in): so are packed weights, also in models that keep their own the other way round."""
    return TurnedPart.all_of(stored) if transposed and len(stored.stored_shape) == 2 else stored


def _compared(after: StoredTensor, before: StoredTensor) -> dict[str, Any]:
    return compare(after, before, "").fields(transposed=False)


def _unread(shape: tuple[int, ...], reason: str) -> dict[str, Any]:
    return {"kind": DeltaKind.UNREADABLE, "shape": shape, "change": None, "reason": reason}
