"""The changes between a checkpoint and its base, tensor by tensor."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

from ftsec_audit.artifact import Artifact
from ftsec_audit.errors import FormatError, Unsupported
from ftsec_audit.weights.comparison import compare
from ftsec_audit.weights.delta import Delta, DeltaKind
from ftsec_audit.weights.fused import packed_parts
from ftsec_audit.weights.named_weights import NamedWeights, layer_count, layers_reached
from ftsec_audit.weights.naming import pairing_key
from ftsec_audit.weights.packed_stream import against_packed, packed_deltas
from ftsec_audit.weights.pairing import Pairing
from ftsec_audit.weights.stored import StoredTensor


def checkpoint_deltas(artifact: Artifact, base: NamedWeights | None, reason: str) -> Iterator[Delta]:
    """One delta per tensor, then packed weights, then what only the base has; `reason`: why there is no base.

    A tensor that holds what the base keeps in several has one delta for each of those.
    """
    subject = NamedWeights(artifact)
    n_layers = max(layers_reached(subject.index), layer_count(subject.config))
    met: set[str] = set()
    unpaired = _Unpaired.of(subject, base)
    for module, after, before in Pairing(subject, base):
        if before is not None:
            met.add(before.name)
        fields = _compared(after, before, reason, subject.transposed(module))
        if base is not None and before is None and fields["kind"] is not DeltaKind.UNREADABLE:
            fields |= unpaired.fields(module, after) or _without_partner(
                after, base, module, subject.transposed(module)
            )
        file = subject.index[after.name].file.path
        yield Delta(name=module, tensors=(after.name,), file=file, n_layers=n_layers, **fields)
    yield from packed_deltas(subject, base, n_layers)
    if base is not None:
        yield from _missing(subject, base, met | unpaired.of_base, n_layers)


@dataclass(frozen=True)
class _Unpaired:
    """Projections that one side alone fuses, and that packing keeps from being compared."""

    modules: frozenset[str]
    """Of the subject, by pairing key."""
    of_base: frozenset[str]
    """Tensors of the base."""

    @classmethod
    def of(cls, subject: NamedWeights, base: NamedWeights | None) -> _Unpaired:
        if base is None:
            return cls(frozenset(), frozenset())
        fused, split = packed_parts(subject, base), packed_parts(base, subject)
        modules = {pairing_key(module) for module in (*fused, *chain.from_iterable(split.values()))}
        others = {*split, *chain.from_iterable(fused.values())}
        plain = {name for other in others if (name := base.named(other))}
        keys = {pairing_key(other) for other in others}
        packed = {name for name, weight in base.packed.items() if pairing_key(weight.module) in keys}
        return cls(frozenset(modules), frozenset(plain | packed))

    def fields(self, module: str, after: StoredTensor) -> dict[str, Any]:
        """Those of a delta that is not read; none for a module that is none of these."""
        if pairing_key(module) not in self.modules:
            return {}
        reason = "fused on one side and packed on one: only names can be compared"
        return {
            "kind": DeltaKind.UNREADABLE,
            "shape": after.stored_shape,
            "change": None,
            "reason": reason,
        }


def _compared(
    after: StoredTensor, before: StoredTensor | None, reason: str, transposed: bool | None
) -> dict[str, Any]:
    try:
        return compare(after, before, reason).fields(transposed=bool(transposed))
    except (FormatError, Unsupported) as error:
        return {"kind": DeltaKind.UNREADABLE, "shape": after.stored_shape, "reason": error.what}


def _without_partner(
    after: StoredTensor, base: NamedWeights, module: str, transposed: bool | None
) -> dict[str, Any]:
    """What becomes of a tensor that the base has packed, or not at all."""
    packed = base.find_packed(module)
    if packed is None:
        return {"kind": DeltaKind.ADDED, "reason": "the base has no such tensor"}
    return against_packed(after, base, packed, bool(transposed))


def _missing(subject: NamedWeights, base: NamedWeights, met: set[str], n_layers: int) -> Iterator[Delta]:
    """Tensors of the base, but for those in `met`, that no tensor of the subject was compared with."""
    taken = {module for module, _ in subject.modules()}
    for module, name in base.modules():
        if name in met or subject.find_packed(module):
            continue
        tied = subject.find(module) is not None
        yield Delta(
            name=module if module not in taken else f"{module} (base)",
            kind=DeltaKind.MISSING,
            shape=base.index[name].shape,
            tensors=(),
            n_layers=n_layers,
            reason="tied to another tensor of the checkpoint" if tied else "",
        )
    for name, packed in base.packed.items():
        if name not in met and not subject.has(packed.module):
            yield Delta(
                name=f"{name} (base)",
                kind=DeltaKind.MISSING,
                shape=base.index[name].shape,
                tensors=(),
                n_layers=n_layers,
            )
