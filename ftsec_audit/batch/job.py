"""The values of a batch: what is to be scanned, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from ftsec_audit.errors import SourceError
from ftsec_audit.types import Confidence, Profile, Severity, Verdict

if TYPE_CHECKING:
    from ftsec_audit.types import Report


class FailureKind(StrEnum):
    """Why an artifact has no report."""

    SOURCE = "source"
    """It could not be resolved or fetched."""
    TIMEOUT = "timeout"
    MEMORY = "memory"
    CRASH = "crash"
    """The process that scanned it ended without a result."""
    ERROR = "error"
    """The program raised what it should have reported."""
    STORE = "store"
    """The result could not be written; nothing of it is kept."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    kind: FailureKind
    reason: str


@dataclass(frozen=True, kw_only=True)
class Job:
    """One scan to be done. Everything that decides over its result is in `key`."""

    key: str
    """64 hex digits: artifact content, base, questions asked, version of the program."""
    reference: str
    """Pinned to a commit, or an absolute path."""
    base: str = ""
    """Pinned likewise; empty where there is none, or where the scan itself has to say why."""
    base_size: int = 0
    size: int = 0
    names: tuple[str, ...] = ()
    """Every reference of the input that means these bytes, as it was written there."""
    answers: tuple[str, ...] = field(default=(), repr=False)
    """What the Hub said while the batch was planned, for the worker to keep: nothing is asked twice."""

    def keep_answers(self) -> None:
        """Put them where a scan looks first."""
        from ftsec_audit.sources.connection import cache_folder
        from ftsec_audit.sources.listing import keep

        for answer in self.answers:
            keep(answer, cache_folder())


@dataclass(frozen=True, kw_only=True)
class Detected:
    """One detection, as the index lists it."""

    rule: str
    severity: Severity
    confidence: str
    summary: str

    @property
    def certainty(self) -> Confidence:
        return Confidence(self.confidence)


@dataclass(frozen=True, kw_only=True)
class Row:
    """A stored document in short: what the index, the events and the summary show of it."""

    name: str
    """Of the document in the store."""
    key: str
    reference: str
    base: str = ""
    resolved: str = ""
    digest: str = ""
    description: str = ""
    profile: Profile | None = None
    verdict: Verdict | None = None
    """By the default policy; None for a failure."""
    suspicion: float | None = None
    failure: FailureKind | None = None
    reason: str = ""
    """Of the failure."""
    size: int = 0
    seconds: float = 0.0
    memory: int = 0
    """Peak resident memory of the process during the scan, in bytes; 0 where unknown."""
    scanned_at: str = ""
    """UTC, `2026-01-31T12:00:00Z`."""
    tool_version: str = ""
    detected: tuple[Detected, ...] = ()

    @property
    def repository(self) -> str:
        """What the versions of one model have in common: `org/model`, or the path of a folder."""
        return repository(self.resolved or self.reference)


@dataclass(frozen=True, kw_only=True)
class Done:
    """What an executor hands back for a job: a stored document in short, or why there is none."""

    job: Job
    row: Row | None = None
    verdict: Verdict | None = None
    """By the policy of this run."""
    failure: Failure | None = None
    """Set only when nothing was stored: the process died, or the store could not be written."""
    seconds: float = 0.0
    """Spent on it in this run."""
    earlier: bool = False
    """Whether an earlier run has settled it."""


def detections(report: Report) -> tuple[Detected, ...]:
    """The detections of a report in short, most severe first."""
    return tuple(
        Detected(
            rule=finding.rule,
            severity=finding.severity,
            confidence=str(finding.confidence),
            summary=finding.summary,
        )
        for finding in report.detected()
    )


def repository(reference: str) -> str:
    """`org/model` of a reference to the Hub, `models:/name` of one to MLflow, one to a bucket without its
    state; any other as it is."""
    from ftsec_audit.sources.references import is_stored, parse_hub, parse_stored

    if reference.startswith("models:/"):
        return "/".join(reference.split("/")[:2])
    try:
        if is_stored(reference):
            return str(replace(parse_stored(reference), state=""))
        return parse_hub(reference).repository
    except SourceError:
        return reference
