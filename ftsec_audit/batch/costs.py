"""How long scans and loads are expected to take: for estimates, and to decide whether a load pays."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ftsec_audit.batch.job import Job
from ftsec_audit.types import Profile

_FEWEST = 20
"""Recorded scans below which the assumptions stand."""


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Seconds of one worker. The defaults are assumptions; `fitted` replaces them by what was recorded."""

    fixed: float = 1.0
    """For every artifact, whatever its size."""
    per_byte: float = 5e-9
    load_per_byte: float = 2e-9
    """To load a base that a worker does not hold yet."""
    recorded: int = 0
    """How many scans the numbers come from; 0 means they are assumed."""

    @classmethod
    def of(cls, profile: Profile) -> Costs:
        """Assumptions: only profiles that ask the model load a base whole."""
        if profile is Profile.QUICK:
            return cls(load_per_byte=0.0)
        return cls(fixed=20.0 if profile is Profile.STANDARD else 600.0)

    def fitted(self, scans: Iterable[tuple[int, float]]) -> Costs:
        """From (bytes, seconds) of earlier scans, by least squares; unchanged when there are few."""
        pairs = list(scans)
        n = len(pairs)
        if n < _FEWEST:
            return self
        mean_size, mean_time = sum(s for s, _ in pairs) / n, sum(t for _, t in pairs) / n
        spread = sum((s - mean_size) ** 2 for s, _ in pairs)
        shared = sum((s - mean_size) * (t - mean_time) for s, t in pairs)
        slope = max(0.0, shared / spread) if spread else 0.0
        fixed = max(0.0, mean_time - slope * mean_size)
        return Costs(fixed=fixed, per_byte=slope, load_per_byte=self.load_per_byte, recorded=n)

    def scan(self, job: Job) -> float:
        return self.fixed + self.per_byte * job.size

    def load(self, job: Job) -> float:
        """The base of a job."""
        return self.load_per_byte * job.base_size
