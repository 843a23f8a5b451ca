"""How sure a share is: intervals and exact tests on counts, standard library only."""

from __future__ import annotations

from dataclasses import dataclass
from math import comb, sqrt


@dataclass(frozen=True)
class Share:
    """`hits` of `n`."""

    hits: int
    n: int

    @property
    def value(self) -> float:
        """hits/n; 0 where nothing was counted."""
        return self.hits / self.n if self.n else 0.0

    def interval(self, z: float = 1.959964) -> tuple[float, float]:
        """Wilson's interval (1927) at `z` standard deviations; (0, 1) where nothing was counted."""
        if not self.n:
            return 0.0, 1.0
        centre = self.value + z * z / (2 * self.n)
        spread = z * sqrt(self.value * (1 - self.value) / self.n + z * z / (4 * self.n**2))
        width = 1 + z * z / self.n
        return max(0.0, (centre - spread) / width), min(1.0, (centre + spread) / width)

    def __str__(self) -> str:
        low, high = self.interval()
        return f"{self.value:.0%} ({self.hits} of {self.n}, 95 % interval {low:.0%}–{high:.0%})"


def fisher_greater(one: Share, other: Share) -> float:
    """P of a table at least as one-sided as this when both shares are equal (Fisher's exact test)."""
    hits, n = one.hits + other.hits, one.n + other.n
    total = comb(n, one.n)
    most = min(hits, one.n)
    return sum(comb(hits, k) * comb(n - hits, one.n - k) for k in range(one.hits, most + 1)) / total
