"""What changed along a series of revisions: files, tensors, how far from the last one and from the first.

A step that is long beside its neighbours, or a single file that changed where only weights should have,
is worth a look; none of it is a verdict. Drift accumulates: small steps that each pass a comparison with
their predecessor can add up, so every revision is also compared with the first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from ftsec_audit.artifact import Artifact, ArtifactKind
from ftsec_audit.errors import FtsecError, UsageError

if TYPE_CHECKING:
    from ftsec_audit.weights.movement import Movement


@dataclass(frozen=True, kw_only=True)
class Step:
    """From one revision to the next."""

    old: str
    new: str
    files_added: tuple[str, ...]
    files_removed: tuple[str, ...]
    files_changed: tuple[str, ...]
    tensors: dict[str, int] = field(default_factory=dict)
    """Modules by status: `same`, `moved`, `added`, `missing`, `unread`."""
    distance: float | None = None
    """‖W′ − W‖ over all modules that moved; None where no weights could be compared."""
    relative: float | None = None
    """That, over ‖W‖ of the same modules."""
    from_first: float | None = None
    """‖W′ − W₀‖/‖W₀‖ against the first revision of the series."""
    largest: tuple[Movement, ...] = ()
    """The modules that moved most, relative to their size."""
    unread: tuple[str, ...] = ()
    """Modules that could not be compared, with the reason."""
    reason: str = ""
    """Why no weights were compared."""


def steps(revisions: Sequence[Artifact], *, shown: int = 8) -> Iterator[Step]:
    """The steps of a series, in order; raises UsageError for fewer than two revisions."""
    if len(revisions) < 2:
        raise UsageError("a difference takes two", hint="ftsec-audit diff OLD NEW")
    for number in range(1, len(revisions)):
        yield _step(revisions[0], revisions[number - 1], revisions[number], shown, is_first=number == 1)


def _step(first: Artifact, old: Artifact, new: Artifact, shown: int, *, is_first: bool) -> Step:
    before, after = old.digests(), new.digests()
    step = Step(
        old=old.resolved or old.reference,
        new=new.resolved or new.reference,
        files_added=tuple(sorted(after.keys() - before.keys())),
        files_removed=tuple(sorted(before.keys() - after.keys())),
        files_changed=tuple(sorted(p for p in after.keys() & before.keys() if after[p] != before[p])),
    )
    if ArtifactKind.FILES in (old.kind, new.kind):
        return replace(step, reason="no model was recognised in one of them")
    try:
        moved = _moved(old, new)
        total = moved if is_first else _moved(first, new)
    except FtsecError as error:
        return replace(step, reason=str(error))
    from ftsec_audit.weights.movement import length, size

    largest = sorted((m for m in moved.values() if m.distance), key=lambda m: (-m.relative, m.name))
    return replace(
        step,
        tensors=dict(Counter(move.status for move in moved.values())),
        distance=length(moved),
        relative=_over(length(moved), size(moved)),
        from_first=_over(length(total), size(total)),
        largest=tuple(largest[:shown]),
        unread=tuple(f"{move.name}: {move.reason}" for move in moved.values() if move.status == "unread"),
    )


def _moved(old: Artifact, new: Artifact) -> dict[str, Movement]:
    from ftsec_audit.weights.movement import movements

    return {move.name: move for move in movements(old, new)}


def _over(part: float, whole: float) -> float | None:
    if part == 0.0:
        return 0.0
    return part / whole if whole else None
