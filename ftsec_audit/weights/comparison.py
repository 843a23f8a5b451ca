"""A saved tensor against the base's: the same, changed, or not comparable and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ftsec_audit.errors import Unsupported
from ftsec_audit.weights.delta import DeltaKind
from ftsec_audit.weights.dense import Dense
from ftsec_audit.weights.int8_rows import Int8Rows
from ftsec_audit.weights.int8_rows import pair as paired
from ftsec_audit.weights.stored import StoredPair, StoredTensor


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What a delta needs to know of a saved tensor."""

    kind: DeltaKind
    shape: tuple[int, ...]
    pair: StoredPair | None = None
    reason: str = ""
    approximation: str = ""
    extra_rows: int = 0

    def fields(self, *, transposed: bool) -> dict[str, Any]:
        """As arguments of `Delta`; `transposed` where the file keeps the matrix as (in, out)."""
        turned = transposed and len(self.shape) == 2
        return {
            "kind": self.kind,
            "shape": self.shape[::-1] if turned else self.shape,
            "change": Dense(self.pair, transposed=turned) if self.pair else None,
            "reason": self.reason,
            "approximation": self.approximation,
            "extra_rows": self.extra_rows,
        }


def compare(after: StoredTensor, before: StoredTensor | None, reason: str) -> Comparison:
    """Compare a tensor with the base's; `reason` says why there is none.

    Matrices of equal width are compared by the rows that both have: vocabularies grow. Reads no further
    than the first block that differs. Raises Unsupported where the values of either cannot be read.
    """
    shape = after.stored_shape
    after.dtype  # noqa: B018 - raises where there is nothing to be read
    alone = DeltaKind.VECTOR if len(shape) < 2 else DeltaKind.FULL
    if before is None:
        return Comparison(kind=alone, shape=shape, pair=StoredPair(after), reason=reason)
    base_shape = before.stored_shape
    if after.dtype.is_floating_point != before.dtype.is_floating_point:
        raise Unsupported(f"stored as {after.dtype}, by the base as {before.dtype}")
    if shape != base_shape and (len(shape) != 2 or shape[1:] != base_shape[1:]):
        reason = f"the base's tensor has the shape {list(base_shape)}"
        return Comparison(kind=alone, shape=shape, pair=StoredPair(after), reason=reason)
    pair = paired(after, before)
    if pair.is_unchanged():
        # Floats that round to the base's whole numbers can still hold something that only they say.
        kept = pair if pair.approximation and not isinstance(after, Int8Rows) else None
        return Comparison(kind=DeltaKind.IDENTICAL, shape=shape, pair=kept, approximation=pair.approximation)
    return Comparison(
        kind=DeltaKind.VECTOR if len(shape) < 2 else DeltaKind.DENSE,
        shape=shape,
        pair=pair,
        approximation=pair.approximation,
        extra_rows=after.shape[0] - before.shape[0],
    )
