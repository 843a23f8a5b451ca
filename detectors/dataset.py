"""The base of rules about training data, and how rows become evidence."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ftsec_audit.contracts import ArtifactDetector, Subject
from ftsec_audit.types import Evidence, Location, NotLookedAt, Observation

if TYPE_CHECKING:
    from ftsec_audit.formats.dialogues import Dialogues

LISTED = 100
"""Row numbers in one piece of evidence; its message counts all."""


@dataclass(frozen=True, kw_only=True)
class DatasetDetector(ArtifactDetector):
    """Looks at the rows a model was tuned on; not applicable where they are not at hand."""

    @abstractmethod
    def examine(self, data: Dialogues) -> Iterator[Observation]:
        """The answers to all rules for a data set with at least one row."""

    def inspect(self, subject: Subject) -> Iterator[Observation]:
        data = subject.dataset
        if data is None or not data.rows:
            reason = "no training data was given (--dataset)" if data is None else "the data set has no rows"
            yield from (rule.not_applicable(reason) for rule in self.rules)
            return
        if data.unread:
            reason = f"{data.unread} rows could not be read, first {data.problems[0]}"
            yield NotLookedAt(what=data.path, reason=reason, incomplete=True)
        if data.cut:
            yield NotLookedAt(what=data.path, reason=f"not read to its end: {data.cut}", incomplete=True)
        yield from self.examine(data)


def rows_evidence(
    data: Dialogues,
    indices: Sequence[int],
    message: str,
    *,
    statistic: str = "",
    value: float | None = None,
    excerpt: str = "",
    **details: object,
) -> Evidence:
    """Evidence that lies in some rows, given by their places in `data.rows`; it points to the first."""
    numbers = [data.rows[index].number for index in indices[:LISTED]]
    return Evidence(
        message=message,
        statistic=statistic,
        value=value,
        location=Location(file=data.path, line=numbers[0] if numbers else None),
        excerpt=excerpt[:200],
        details={"rows": numbers, **details},
    )
