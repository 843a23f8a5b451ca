"""Areas, rates and their intervals, from scores of known-bad and of benign samples. Larger is stranger."""

from __future__ import annotations

import math
import random
from bisect import bisect_left, bisect_right
from collections.abc import Sequence

Interval = tuple[float, float]

_Z95 = 1.959964


def auroc(bad: Sequence[float], good: Sequence[float]) -> float:
    """P(a bad sample scores above a good one) + ½ P(they tie); NaN when either side is empty."""
    if not bad or not good:
        return math.nan
    ordered = sorted(good)
    wins = sum(bisect_left(ordered, score) + bisect_right(ordered, score) for score in bad)
    return wins / (2 * len(bad) * len(good))


def auroc_interval(
    bad: Sequence[float], good: Sequence[float], *, draws: int = 1000, seed: int = 0
) -> Interval:
    """95 % interval of the area by the bootstrap, each side resampled by itself (percentiles).

    At an area of exactly 0 or 1 every draw is the same; the interval is then closed by the exact bound
    1 − 0.025^(1/n) with n the size of the smaller side.
    """
    area = auroc(bad, good)
    if math.isnan(area):
        return math.nan, math.nan
    if area in (0.0, 1.0):
        reach = 1.0 - 0.025 ** (1.0 / min(len(bad), len(good)))
        return (1.0 - reach, 1.0) if area else (0.0, reach)
    rng = random.Random(seed)
    areas = sorted(auroc(rng.choices(bad, k=len(bad)), rng.choices(good, k=len(good))) for _ in range(draws))
    return areas[int(0.025 * draws)], areas[math.ceil(0.975 * draws) - 1]


def wilson(hits: int, n: int) -> Interval:
    """95 % interval of a share (Wilson 1927); the whole range for n = 0."""
    if n == 0:
        return 0.0, 1.0
    share, z2 = hits / n, _Z95**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    reach = _Z95 / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return max(0.0, centre - reach), min(1.0, centre + reach)


def threshold(good: Sequence[float], false_positive_rate: float) -> float:
    """The smallest score that at most this share of the benign samples exceeds.

    With fewer than 1/rate benign samples none may exceed it: the stated rate is then finer than what
    so few can show, and the reader is told n.
    """
    allowed = math.floor(false_positive_rate * len(good) + 1e-9)
    return sorted(good, reverse=True)[allowed] if allowed < len(good) else -math.inf


def hits_above(bad: Sequence[float], good: Sequence[float], false_positive_rate: float) -> int:
    """How many bad samples score strictly above the threshold that the benign ones set."""
    if not good:
        return 0
    limit = threshold(good, false_positive_rate)
    return sum(score > limit for score in bad)
