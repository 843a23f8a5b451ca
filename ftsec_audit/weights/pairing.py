"""Which tensor of its base, or part of one, every tensor of a checkpoint is compared with."""

from __future__ import annotations

from collections.abc import Iterator

from ftsec_audit.weights.fused import parts
from ftsec_audit.weights.named_weights import NamedWeights
from ftsec_audit.weights.stored import StoredTensor


class Pairing:
    """The tensors of a checkpoint in file order, each with what the base has in its place."""

    def __init__(self, subject: NamedWeights, base: NamedWeights | None) -> None:
        self._subject, self._base = subject, base
        self._split = parts(subject, base) if base else {}
        fused = parts(base, subject) if base else {}
        self._within = {part.alone.name: part.within for those in fused.values() for part in those}

    def __iter__(self) -> Iterator[tuple[str, StoredTensor, StoredTensor | None]]:
        """(module, tensor, the base's), one a part where the base has the tensor in parts."""
        for module, name in self._subject.modules():
            if name in self._split:
                yield from ((part.module, part.within, part.alone) for part in self._split[name])
            else:
                before = self._within.get(name) or (self._base.find(module) if self._base else None)
                yield module, StoredTensor(self._subject.index, name), before
