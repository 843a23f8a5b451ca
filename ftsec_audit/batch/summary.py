"""What became of a batch, in numbers and in the artifacts worth looking at; bounded, whatever its size."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from ftsec_audit.batch.job import Done, Row
from ftsec_audit.batch.plan import BatchPlan
from ftsec_audit.types import Verdict

_SHOWN = 50


@dataclass(kw_only=True)
class Summary:
    """Filled while the batch runs."""

    plan: BatchPlan
    started: float = field(default_factory=time.monotonic)
    finished_before: int = 0
    """Settled by earlier runs; part of the verdicts and failures."""
    verdicts: Counter[Verdict] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    """By kind."""
    scan_seconds: float = 0.0
    """Added up over workers, for the artifacts of this run."""
    interrupted: bool = False
    worst: list[tuple[Verdict | None, Row]] = field(default_factory=list)
    """Failed verdicts, most suspicious first, then artifacts without a report."""
    ended: float = 0.0

    def add(self, done: Done) -> None:
        row = done.row
        assert row is not None
        self.scan_seconds += done.seconds
        self.finished_before += done.earlier
        if row.failure:
            self.failures[row.failure] += 1
        elif done.verdict is not None:
            self.verdicts[done.verdict] += 1
        if done.verdict in (Verdict.FAIL, None):
            self.worst.append((done.verdict, row))
            self.worst.sort(key=_rank)
            del self.worst[_SHOWN:]
        self.ended = time.monotonic()

    @property
    def done(self) -> int:
        """Artifacts and references of which something is known now."""
        return self.verdicts.total() + self.failures.total()

    @property
    def planned(self) -> int:
        return len(self.plan.jobs) + len(self.plan.unresolved)

    @property
    def remaining(self) -> int:
        return self.planned - self.done

    @property
    def seconds(self) -> float:
        return max(0.0, (self.ended or time.monotonic()) - self.started)

    def progress(self) -> str:
        """One line: done, failed, rate, remaining time."""
        fresh = self.done - self.finished_before
        rate = fresh / max(1e-9, time.monotonic() - self.started)
        left = f", about {_clock(self.remaining / rate)} left" if fresh else ""
        return (
            f"{self.done:,} of {self.planned:,} done, {self.failures.total():,} without a report, "
            f"{rate * 60:,.1f} a minute{left}"
        )

    def document(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "references": self.plan.references,
            "artifacts": len(self.plan.jobs),
            "duplicates": self.plan.duplicates,
            "unresolved": len(self.plan.unresolved),
            "bases": len(self.plan.bases),
            "bytes": self.plan.bytes,
            "finished_before": self.finished_before,
            "verdicts": {str(verdict): self.verdicts[verdict] for verdict in Verdict},
            "failures": dict(sorted(self.failures.items())),
            "remaining": self.remaining,
            "interrupted": self.interrupted,
            "seconds": round(self.seconds, 3),
            "scan_seconds": round(self.scan_seconds, 3),
            "worst": [_entry(verdict, row) for verdict, row in self.worst],
        }


def _rank(entry: tuple[Verdict | None, Row]) -> tuple[bool, float, str]:
    verdict, row = entry
    return verdict is None, -(row.suspicion or 0.0), row.reference


def _entry(verdict: Verdict | None, row: Row) -> dict[str, Any]:
    return {
        "reference": row.reference,
        "key": row.key,
        "verdict": verdict,
        "suspicion": row.suspicion,
        "rules": sorted({detected.rule for detected in row.detected}),
        "failure": row.failure,
        "reason": row.reason,
    }


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
