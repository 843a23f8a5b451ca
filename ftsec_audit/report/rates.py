"""How often something happened, with its interval, as the numbers that a drawing needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeGuard

from ftsec_audit.calibration.proportions import Share

WIDTH = 120.0


@dataclass(frozen=True, kw_only=True)
class Rate:
    """A share of trials; the interval is None where nobody said how many trials there were."""

    value: float
    n: int | None = None
    interval: tuple[float, float] | None = None

    @property
    def text(self) -> str:
        return f"{100 * self.value:.0f} %"

    @property
    def certainty(self) -> str:
        """`94–99 % of 200`: the 95 % interval and the number of trials."""
        low, high = self.interval or (None, None)
        between = f"{100 * low:.0f}–{100 * high:.0f} %" if low is not None and high is not None else ""
        return " of ".join(filter(None, (between, f"{self.n:,}" if self.n else "")))

    @property
    def bar(self) -> float:
        return WIDTH * self.value

    @property
    def whisker(self) -> tuple[float, float] | None:
        return (WIDTH * self.interval[0], WIDTH * self.interval[1]) if self.interval else None


def rate(value: object, n: object = None, interval: tuple[float, float] | None = None) -> Rate | None:
    """A share as a detector wrote it, None if it is none; with Wilson's interval when it has no other."""
    if not _is_share(value):
        return None
    trials = n if isinstance(n, int) and not isinstance(n, bool) and n > 0 else None
    if interval is not None and not all(map(_is_share, interval)):
        interval = None
    if interval is None and trials is not None:
        interval = Share(round(value * trials), trials).interval()
    return Rate(value=value, n=trials, interval=interval)


def _is_share(value: object) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1
