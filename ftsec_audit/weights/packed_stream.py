"""Packed weights of a checkpoint against its base's: the same bits, or not read and said to be so."""

from __future__ import annotations

from collections.abc import Iterator

from ftsec_audit.errors import FormatError, Unsupported
from ftsec_audit.weights.delta import Delta, DeltaKind
from ftsec_audit.weights.named_weights import NamedWeights
from ftsec_audit.weights.packed import Packed
from ftsec_audit.weights.stored import StoredPair, StoredTensor


def packed_deltas(subject: NamedWeights, base: NamedWeights | None, n_layers: int) -> Iterator[Delta]:
    """One delta per packed weight, with all of its tensors."""
    met: set[str] = set()
    for weight in subject.packed.values():
        own = weight.module not in met and subject.named(weight.module) is None
        met.add(weight.module)
        entry = subject.index[weight.tensors[0]]
        reason = _difference(subject, weight, base)
        yield Delta(
            name=weight.module if own else f"{entry.name} (packed)",
            kind=DeltaKind.UNREADABLE if reason else DeltaKind.IDENTICAL,
            shape=entry.shape,
            tensors=weight.tensors,
            file=entry.file.path,
            n_layers=n_layers,
            reason=reason,
        )


def _difference(subject: NamedWeights, weight: Packed, base: NamedWeights | None) -> str:
    """Why the weight is not known to be the base's; empty where it is, bit for bit."""
    unread = f"packed ({weight.scheme}), which is not decoded"
    other = base.find_packed(weight.module) if base else None
    if base is None or other is None or other.scheme != weight.scheme:
        return unread
    try:
        if len(other.tensors) == len(weight.tensors) and all(
            _same(StoredTensor(subject.index, one), StoredTensor(base.index, two))
            for one, two in zip(weight.tensors, other.tensors, strict=True)
        ):
            return ""
    except (FormatError, Unsupported) as error:
        return error.what
    return f"{unread}; it is not the base's"


def _same(one: StoredTensor, other: StoredTensor) -> bool:
    alike = one.stored_shape == other.stored_shape and one.dtype == other.dtype
    return alike and StoredPair(one, other).is_unchanged()
