"""How far did every module move from one revision to another, and did it keep its direction?

Between checkpoints the difference is streamed; between adapters it is ΔW′ − ΔW = [s′B′ | −sB][A′; A], a
factored change itself, so that no ΔW is ever formed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch

from ftsec_audit.artifact import Artifact, ArtifactKind
from ftsec_audit.contracts import Subject
from ftsec_audit.errors import FtsecError, NotApplicable
from ftsec_audit.weights.delta import Delta, DeltaKind
from ftsec_audit.weights.lowrank import LowRank
from ftsec_audit.weights.stream import deltas


@dataclass(frozen=True, kw_only=True)
class Movement:
    """One module between two revisions. Norms are Frobenius norms."""

    name: str
    role: str
    layer: int | None
    status: str
    """`same`, `moved`, `added`, `missing` or `unread`."""
    distance: float = 0.0
    """‖W′ − W‖, or ‖ΔW′ − ΔW‖ between adapters; 0 unless `moved`."""
    before: float = 0.0
    """‖W‖, or ‖ΔW‖ between adapters."""
    after: float = 0.0
    """‖ΔW′‖ between adapters; 0 between checkpoints, where it is not measured."""
    reason: str = ""
    """Why it could not be read."""

    @property
    def relative(self) -> float:
        """distance / before; infinite where there was nothing before."""
        if self.distance == 0.0:
            return 0.0
        return self.distance / self.before if self.before else math.inf


def movements(old: Artifact, new: Artifact) -> Iterator[Movement]:
    """Every module of either revision, in the order of `new`; those that only `old` has come last.

    Raises NotApplicable unless both are adapters or both are checkpoints, and what reading raises.
    """
    if old.kind is not new.kind or old.kind is ArtifactKind.FILES:
        both = f"{old.reference} is {_kind(old)} and {new.reference} is {_kind(new)}"
        raise NotApplicable(f"{both}: there is nothing to compare")
    yield from _between_adapters(old, new) if old.kind is ArtifactKind.ADAPTER else _between(old, new)


def _kind(artifact: Artifact) -> str:
    names = {
        ArtifactKind.ADAPTER: "an adapter",
        ArtifactKind.CHECKPOINT: "a checkpoint",
        ArtifactKind.EXPORTED: "an exported graph",
    }
    return names.get(artifact.kind, "no model")


_STATUS = {
    DeltaKind.IDENTICAL: "same",
    DeltaKind.ADDED: "added",
    DeltaKind.FULL: "added",
    DeltaKind.MISSING: "missing",
    DeltaKind.UNREADABLE: "unread",
}


def _between(old: Artifact, new: Artifact) -> Iterator[Movement]:
    """Checkpoints: the earlier one is the base of the later one."""
    for delta in deltas(Subject(artifact=new, base=old)):
        try:
            movement = _of(delta, _STATUS.get(delta.kind, "moved"), delta.reason)
            if movement.status == "moved":
                before = delta.base_norm() or 0.0
                movement = replace(movement, distance=delta.frobenius_norm(), before=before)
            yield movement
        except FtsecError as error:
            yield _of(delta, "unread", str(error))


def _between_adapters(old: Artifact, new: Artifact) -> Iterator[Movement]:
    earlier = {delta.name: delta for delta in deltas(_alone(old))}
    for delta in deltas(_alone(new)):
        yield _moved(earlier.pop(delta.name, None), delta)
    for delta in earlier.values():
        yield _of(delta, "missing")


def _alone(artifact: Artifact) -> Subject:
    return Subject(artifact=artifact, base=None, base_reason="two adapters are compared with each other")


def _of(delta: Delta, status: str, reason: str = "") -> Movement:
    return Movement(name=delta.name, role=delta.role, layer=delta.layer, status=status, reason=reason)


def _moved(old: Delta | None, new: Delta) -> Movement:
    if old is None:
        return _of(new, "added")
    try:
        if old.change is None or new.change is None:
            raise NotApplicable(old.reason or new.reason or "its change is not known in numbers")
        if old.change.shape != new.change.shape:
            raise NotApplicable(f"{old.change.shape} became {new.change.shape}")
        distance = _distance(old, new)
        return replace(
            _of(new, "moved" if distance else "same"),
            distance=distance,
            before=old.frobenius_norm(),
            after=new.frobenius_norm(),
        )
    except FtsecError as error:
        return _of(new, "unread", str(error))


def _distance(old: Delta, new: Delta) -> float:
    """‖ΔW′ − ΔW‖_F; exactly 0 for equal factors, whatever rounding would make of their difference."""
    if isinstance(old.change, LowRank) and isinstance(new.change, LowRank):
        a, b = old.change, new.change
        same = a.scale == b.scale and a.left.shape == b.left.shape
        if same and torch.equal(a.left, b.left) and torch.equal(a.right, b.right):
            return 0.0
        left = torch.cat([b.left.float() * b.scale, a.left.float() * -a.scale], dim=1)  # (rows, r + r′)
        return LowRank.of(left, torch.cat([b.right.float(), a.right.float()])).frobenius_norm()
    assert old.change is not None and new.change is not None
    rows = max(1, (1 << 20) // max(1, old.change.shape[1]))
    pairs = zip(old.change.blocks(rows), new.change.blocks(rows), strict=True)
    return math.sqrt(sum(float((b - a).double().square().sum()) for a, b in pairs))


def length(movements: Mapping[str, Movement]) -> float:
    """√Σ distance² over modules."""
    return math.sqrt(math.fsum(move.distance**2 for move in movements.values()))


def size(movements: Mapping[str, Movement]) -> float:
    """√Σ before² over the modules that moved."""
    return math.sqrt(math.fsum(move.before**2 for move in movements.values() if move.status == "moved"))
