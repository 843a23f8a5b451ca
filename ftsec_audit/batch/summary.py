"""What became of a batch, in numbers and in the artifacts worth looking at; bounded, whatever its size."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from ftsec_audit.batch.job import Done, Job, Row
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
    triaged: int | None = None
    """How many were asked more than a first profile; None without a triage."""
    passed_on: list[Job] = field(default_factory=list)
    """Those of which a triage asks more; part of nothing else here."""

    def pass_on(self, done: Done) -> None:
        self.scan_seconds += done.seconds
        self.passed_on.append(done.job)
        self.ended = time.monotonic()

    def followed_by(self, second: Summary) -> Summary:
        """This one, with what another batch made of `passed_on` in their place."""
        first = {job.key: job for job in self.plan.jobs}
        for job in self.passed_on:
            del first[job.key]
        whole = BatchPlan(
            jobs=(*first.values(), *second.plan.jobs),
            unresolved=(*self.plan.unresolved, *second.plan.unresolved),
            references=self.plan.references,
        )
        return Summary(
            plan=whole,
            started=self.started,
            finished_before=self.finished_before + second.finished_before,
            verdicts=self.verdicts + second.verdicts,
            failures=self.failures + second.failures,
            scan_seconds=self.scan_seconds + second.scan_seconds,
            interrupted=self.interrupted or second.interrupted,
            worst=sorted((*self.worst, *second.worst), key=_rank)[:_SHOWN],
            ended=second.ended or self.ended,
            triaged=len(self.passed_on),
        )

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
        return len(self.plan.jobs) + len(self.plan.unresolved) - len(self.passed_on)

    @property
    def remaining(self) -> int:
        return self.planned - self.done

    @property
    def seconds(self) -> float:
        return max(0.0, (self.ended or time.monotonic()) - self.started)

    @property
    def rate(self) -> float:
        """Artifacts of this run per second."""
        return (self.done - self.finished_before) / max(1e-9, time.monotonic() - self.started)

    def figures(self) -> dict[str, str]:
        """What a person wants to see meanwhile, by the heads of a table."""
        return {
            "done": f"{self.done:,} of {self.planned:,}",
            **{str(verdict): f"{self.verdicts[verdict]:,}" for verdict in Verdict},
            "no report": f"{self.failures.total():,}",
            "a minute": f"{self.rate * 60:,.1f}",
            "time left": clock(self.remaining / self.rate) if self.rate else "",
        }

    def progress(self) -> str:
        """The same in one line."""
        return " · ".join(f"{value} {name}" for name, value in self.figures().items() if value)

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
            "triaged": self.triaged,
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


def clock(seconds: float) -> str:
    """`2 h 5 min`, `3 min 20 s` or `7 s`."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
