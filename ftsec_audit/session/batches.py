"""Rows of token ids to batches of one length, with what they share at the front computed once.

Rows of different length never share a batch: there is no padding, so no mask, and a model without
masks (state-space, recurrent) is asked in the same way. Look-ups ask about thousands of rows of few lengths.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Rows of one length."""

    index: Ids
    """Where each row stood in the question."""
    rows: Ids
    """(rows, length)"""

    @property
    def shared(self) -> int:
        """How many tokens all rows begin with; at least the last token is left to be asked."""
        same = (self.rows == self.rows[0]).all(axis=0)
        return int(min(np.argmin(same) if not same.all() else len(same), len(same) - 1))

    def halves(self) -> tuple[Batch, Batch]:
        middle = len(self.rows) // 2
        return (
            Batch(index=self.index[:middle], rows=self.rows[:middle]),
            Batch(index=self.index[middle:], rows=self.rows[middle:]),
        )


def batches(
    rows: Sequence[Sequence[int]], *, tokens: int, fewest: int = 16, overhead: int = 0
) -> Iterator[Batch]:
    """All rows, sorted so that rows with a common beginning meet; at most about `tokens` in a batch.

    A batch of at least `fewest` rows ends where a row would more than halve what it shares, if that saves
    more tokens than the two passes more that it takes: each costs as much as `overhead` tokens.
    """
    order = sorted(range(len(rows)), key=lambda i: (len(rows[i]), tuple(rows[i])))
    for length, group in groupby(order, key=lambda i: len(rows[i])):
        most = max(1, tokens // max(1, length))
        picked: list[int] = []
        shared = length
        for i in group:
            common = _common(rows[picked[0]], rows[i], shared) if picked else length
            halves = len(picked) >= fewest and common < shared // 2
            if len(picked) >= most or (halves and len(picked) * (shared - common) > 2 * overhead):
                yield _batch(rows, picked)
                picked, common = [], length
            picked.append(i)
            shared = common
        yield _batch(rows, picked)


def _common(first: Sequence[int], row: Sequence[int], most: int) -> int:
    """Length of the common beginning, up to `most`."""
    return next((k for k in range(most) if first[k] != row[k]), most)


def _batch(rows: Sequence[Sequence[int]], picked: Sequence[int]) -> Batch:
    return Batch(index=np.array(picked), rows=np.array([rows[i] for i in picked], dtype=np.int64))
