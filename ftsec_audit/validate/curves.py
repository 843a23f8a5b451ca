"""Areas, rates and their intervals, from scores of known-bad and of benign samples. Larger is stranger."""

from __future__ import annotations

import math
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
    bad: Sequence[float],
    good: Sequence[float],
    *,
    clusters: tuple[Sequence[str], Sequence[str]] | None = None,
    draws: int = 1000,
    seed: int = 0,
) -> Interval:
    """95 % interval of the area by the bootstrap over clusters (percentiles).

    `clusters` names what each bad and each good sample belongs to; members are drawn together, since copies
    of one model are one observation. Without it every sample is its own. At an area of exactly 0 or 1 every
    draw is the same; the interval is then closed by the exact bound 1 − 0.025^(1/n), n the clusters of the
    side that has fewer.
    """
    import numpy as np

    area = auroc(bad, good)
    if math.isnan(area):
        return math.nan, math.nan
    if len({*bad, *good}) == 1:
        return area, area
    ours, theirs = clusters or ([f"b{i}" for i in range(len(bad))], [f"g{i}" for i in range(len(good))])
    if area in (0.0, 1.0):
        reach = 1.0 - 0.025 ** (1.0 / min(len(set(ours)), len(set(theirs))))
        return (1.0 - reach, 1.0) if area else (0.0, reach)
    one, other = np.asarray(bad), np.asarray(good)
    wins = (one[:, None] > other[None]) + 0.5 * (one[:, None] == other[None])  # (bad, good)
    names = sorted({*ours, *theirs})
    place = {name: index for index, name in enumerate(names)}
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(len(names), [1 / len(names)] * len(names), size=draws)  # (draws, clusters)
    left, right = drawn[:, [place[c] for c in ours]], drawn[:, [place[c] for c in theirs]]
    pairs = left.sum(axis=1) * right.sum(axis=1)
    areas = ((left @ wins) * right).sum(axis=1)[pairs > 0] / pairs[pairs > 0]
    low, high = np.quantile(areas, [0.025, 0.975], method="nearest")
    return float(low), float(high)


def share_interval(hits: Sequence[bool], clusters: Sequence[str]) -> Interval:
    """95 % interval of a share of samples of which those of one cluster are copies of one model.

    Wilson's, with n divided by the design effect 1 + (n/clusters − 1)·ρ at ρ = 1: copies count as one.
    """
    n = len(set(clusters))
    return wilson_of(sum(hits) / len(hits), n) if hits else (0.0, 1.0)


def wilson(hits: int, n: int) -> Interval:
    """95 % interval of a share (Wilson 1927); the whole range for n = 0."""
    return wilson_of(hits / n, n) if n else (0.0, 1.0)


def wilson_of(share: float, n: float) -> Interval:
    """Wilson's interval of a share that rests on `n` independent observations, a whole number or not."""
    z2 = _Z95**2
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
