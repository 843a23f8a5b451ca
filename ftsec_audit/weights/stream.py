"""Every tensor of a subject, once, as a change of its base: the single pass that detectors measure.

Laws: every tensor of the subject belongs to exactly one delta, or to one for each of the parts in which the
base keeps it; names of deltas are unique; tensors are read in the order of the files, with one shard of
either side open; memory is a window of factors, or a block of either side.
"""

from __future__ import annotations

from collections.abc import Iterator

from ftsec_audit.artifact import ArtifactKind
from ftsec_audit.contracts import Subject
from ftsec_audit.errors import BudgetExceeded, FormatError, Unsupported
from ftsec_audit.formats.tensors import TensorIndex
from ftsec_audit.weights.adapter_stream import adapter_deltas
from ftsec_audit.weights.checkpoint_stream import checkpoint_deltas
from ftsec_audit.weights.delta import Delta, DeltaKind
from ftsec_audit.weights.named_weights import NamedWeights
from ftsec_audit.weights.naming import canonical_name
from ftsec_audit.weights.token_space import TokenSpace


def deltas(subject: Subject) -> Iterator[Delta]:
    """The changes that `subject` makes; nothing for a subject without a model.

    Raises FormatError, BudgetExceeded and Unsupported where its tensors cannot be indexed at all, and
    SourceError. A single tensor that cannot be read is an UNREADABLE delta.
    """
    if subject.artifact.kind is ArtifactKind.FILES:
        return
    index = subject.artifact.tensors()
    base, reason = _base(subject)
    parent = _parent(subject) if base else None
    if subject.artifact.kind is ArtifactKind.ADAPTER:
        found = adapter_deltas(subject.artifact, base, reason)
        tokens = TokenSpace(base) if base else None
    else:
        found = checkpoint_deltas(subject.artifact, base, reason)
        tokens = TokenSpace(base or NamedWeights(subject.artifact))
    for delta in found:
        delta.tokens, delta.parent, delta.subject = tokens, parent, subject
        yield delta
    yield from _left_out(index)


def _base(subject: Subject) -> tuple[NamedWeights | None, str]:
    """The base's tensors, or why there are none."""
    if subject.base is None:
        return None, subject.base_reason or "no base was given"
    try:
        return NamedWeights(subject.base), ""
    except (FormatError, BudgetExceeded, Unsupported) as error:
        return None, f"the base's tensors cannot be read: {error}"


def _parent(subject: Subject) -> NamedWeights | None:
    """The parent's tensors; None where there is none, or they cannot be read."""
    try:
        return NamedWeights(subject.parent) if subject.parent else None
    except (FormatError, BudgetExceeded, Unsupported):
        return None


def _left_out(index: TensorIndex) -> Iterator[Delta]:
    """Tensors that the file names and that could not even be located."""
    seen: set[str] = set()
    for problem in index.problems:
        if problem.fatal and problem.tensor and problem.tensor not in index and problem.tensor not in seen:
            seen.add(problem.tensor)
            yield Delta(
                name=f"{canonical_name(problem.tensor)} (not located)",
                kind=DeltaKind.UNREADABLE,
                shape=(),
                tensors=(problem.tensor,),
                file=problem.file,
                reason=problem.message,
            )
