"""What a pipeline learns from the exit code.

Of several targets the most decisive code counts: a failed one (1) outranks one that could not be run (2),
which outranks an inconclusive one (3).
"""

from __future__ import annotations

from collections.abc import Iterable

from ftsec_audit.types import Verdict

OK = 0
FAILED = 1
COULD_NOT_RUN = 2
INCONCLUSIVE = 3

_BY_VERDICT = {Verdict.PASS: OK, Verdict.FAIL: FAILED, Verdict.INCONCLUSIVE: INCONCLUSIVE}
_MOST_DECISIVE_FIRST = (FAILED, COULD_NOT_RUN, INCONCLUSIVE, OK)


def of_verdict(verdict: Verdict, *, exit_zero: bool = False) -> int:
    """The code of a verdict; `exit_zero` turns failed and inconclusive into 0, never "could not run"."""
    return OK if exit_zero else _BY_VERDICT[verdict]


def worst(codes: Iterable[int]) -> int:
    return min(codes, key=_MOST_DECISIVE_FIRST.index, default=OK)
