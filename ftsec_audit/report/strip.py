"""A value on the axis of its benign band, as the numbers that a drawing needs.

Coordinates are those of the `viewBox` of the drawing. Values that are not finite are never drawn.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ftsec_audit.report.phrases import number
from ftsec_audit.types import Evidence

WIDTH = 300.0
_MARGIN = 46.0
_LOG_RATIO = 50.0
"""Positive values that span more than this factor are drawn on a logarithmic axis."""


@dataclass(frozen=True, kw_only=True)
class Strip:
    """One value on the axis of its benign band (5th to 95th percentile)."""

    band: tuple[float, float]
    """Left and right end of the band."""
    at: float
    low: str
    high: str
    value: str
    outside: bool


def strip(evidence: Evidence) -> Strip | None:
    """The strip of a piece of evidence that has a value and a population with a band."""
    population, value = evidence.population, evidence.value
    if value is None or population is None or population.band is None:
        return None
    low, high = population.band
    if not (math.isfinite(value) and math.isfinite(low) and math.isfinite(high) and low <= high):
        return None
    position = axis((value, low, high))
    room = WIDTH - 2 * _MARGIN
    left, right, at = (_MARGIN + room * position(x) for x in (low, high, value))
    return Strip(
        band=(left, max(right, left + 1.0)),
        at=at,
        low=number(low),
        high=number(high),
        value=number(value),
        outside=not low <= value <= high,
    )


def axis(values: Sequence[float]) -> Callable[[float], float]:
    """Maps the range of `values` to 0..1, logarithmically where they span orders of magnitude."""
    low, high = min(values), max(values)
    scale: Callable[[float], float] = (
        math.log if low > 0 and high / low > _LOG_RATIO else lambda x: x / 2  # halved: no overflow below
    )
    start, extent = scale(low), scale(high) - scale(low)
    return lambda value: (scale(value) - start) / extent if extent > 0 else 0.5
