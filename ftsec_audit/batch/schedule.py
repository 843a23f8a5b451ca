"""Which job a worker does next, so that bases are loaded seldom and nobody waits for the last one.

A worker keeps to the base it holds. When its group is done it opens the group with the most work among
those that nobody holds; when every group is held it joins the one with the most work per worker, but only
where that work exceeds what loading the base costs. (List scheduling, longest group first: Graham 1969.)
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Hashable, Iterable, Iterator

from ftsec_audit.batch.costs import Costs
from ftsec_audit.batch.job import Job


class Schedule:
    """Jobs that wait, by base. Within a group they are given out in their order."""

    def __init__(self, jobs: Iterable[Job], costs: Costs | None = None) -> None:
        self._costs = costs or Costs()
        self._groups: dict[str, deque[Job]] = {}
        self._work: dict[str, float] = {}
        """Seconds that are expected of each group."""
        self._holders: Counter[str] = Counter()
        self._held: dict[Hashable, str] = {}
        self.loads = 0
        """How often a worker turned to a base it did not hold."""
        for job in jobs:
            self._groups.setdefault(job.base, deque()).append(job)
            self._add(job)

    def __len__(self) -> int:
        return sum(map(len, self._groups.values()))

    def __bool__(self) -> bool:
        return bool(self._groups)

    def __iter__(self) -> Iterator[Job]:
        """As a single worker takes them."""
        while (job := self.take("")) is not None:
            yield job

    def take(self, worker: Hashable) -> Job | None:
        """The next job of a worker; None when nothing is left that it should do."""
        base = self._held.get(worker)
        if base is None or base not in self._groups:
            self.forget(worker)
            base = self._choice()
            if base is None:
                return None
            self._held[worker] = base
            self._holders[base] += 1
            self.loads += bool(base)
        group = self._groups[base]
        job = group.popleft()
        self._work[base] -= self._costs.scan(job)
        if not group:
            del self._groups[base], self._work[base]
        return job

    def put_back(self, job: Job) -> None:
        """A job whose worker was lost; it is the next of its group."""
        self._groups.setdefault(job.base, deque()).appendleft(job)
        self._add(job)

    def forget(self, worker: Hashable) -> None:
        """The worker holds nothing any more."""
        base = self._held.pop(worker, None)
        if base is not None:
            self._holders[base] -= 1

    def _add(self, job: Job) -> None:
        self._work[job.base] = self._work.get(job.base, 0.0) + self._costs.scan(job)

    def _choice(self) -> str | None:
        unheld = [base for base in self._groups if not self._holders[base]]
        if unheld:
            return max(unheld, key=lambda base: (self._work[base], base))
        worth_it = [
            base for base in self._groups if self._work[base] / self._holders[base] >= self._load(base)
        ]
        return max(worth_it, key=lambda base: self._work[base] / (self._holders[base] + 1), default=None)

    def _load(self, base: str) -> float:
        return self._costs.load(self._groups[base][0]) if base else 0.0
