"""Combining p-values: one number out of dependent tests, and many tests without false discoveries."""

from __future__ import annotations

import math
from collections.abc import Sequence

_SMALLEST = 1e-290


def cauchy_combination(p_values: Sequence[float], weights: Sequence[float] | None = None) -> float:
    """One p-value from several, valid in the tail under arbitrary dependence.

    T = Σ wᵢ tan((½ − pᵢ)π), p = ½ − arctan(T)/π, with Σwᵢ = 1 (Liu and Xie 2020, arXiv:1808.09011).
    A p-value of exactly 1 would contribute −∞ and veto all others; it is read as just below 1. One below
    10⁻²⁹⁰ is read as that, since its quantile is at the end of what a float can hold.
    Raises ValueError for an empty list, a p-value outside [0, 1], or weights that are not positive.
    """
    if not p_values:
        raise ValueError("no p-values to combine")
    weights = [1.0] * len(p_values) if weights is None else list(weights)
    if any(not 0.0 <= p <= 1.0 for p in p_values):
        raise ValueError("a p-value lies in [0, 1]")
    if len(weights) != len(p_values) or any(not w > 0.0 for w in weights):
        raise ValueError("one positive weight per p-value")
    if 0.0 in p_values:
        return 0.0
    ceiling = 1.0 - 1.0 / (100.0 * len(p_values))
    total = math.fsum(weights)
    quantiles = (_cauchy_quantile(min(max(p, _SMALLEST), ceiling)) for p in p_values)
    return _cauchy_survival(math.fsum(w / total * q for w, q in zip(weights, quantiles, strict=True)))


def _cauchy_quantile(p: float) -> float:
    # tan((½ − p)π) = 1/tan(pπ); the second form keeps its digits for tiny p.
    return 1.0 / math.tan(p * math.pi) if p < 0.25 else math.tan((0.5 - p) * math.pi)


def _cauchy_survival(statistic: float) -> float:
    # ½ − arctan(T)/π = arctan(1/T)/π for T > 0, again without cancellation.
    if statistic > 1.0:
        return math.atan(1.0 / statistic) / math.pi
    return 0.5 - math.atan(statistic) / math.pi


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values (q-values) in the order given.

    Rejecting where q ≤ α keeps the expected share of false discoveries at or below α for independent
    or positively dependent tests (Benjamini and Hochberg 1995): q₍ᵢ₎ = min_{j≥i} p₍ⱼ₎ · m/j.
    """
    m = len(p_values)
    adjusted = [1.0] * m
    smallest = 1.0
    for rank, index in zip(
        range(m, 0, -1), sorted(range(m), key=p_values.__getitem__, reverse=True), strict=True
    ):
        smallest = min(smallest, p_values[index] * m / rank)
        adjusted[index] = smallest
    return adjusted
