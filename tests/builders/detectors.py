"""Detectors, deltas and subjects that do as they are told, for tests of what runs them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from ftsec_audit.artifact import ArtifactKind
from ftsec_audit.contracts import ArtifactDetector, Measurements, Subject, WeightDetector
from ftsec_audit.types import Confidence, Evidence, Location, Observation, Profile, Rule, Severity


def rule(id: str, *, needs_base: bool = False, severity: Severity = Severity.HIGH) -> Rule:
    return Rule(
        id=id,
        name=f"rule-{id}",
        question="Is it?",
        severity=severity,
        remediation="Look.",
        needs_base=needs_base,
    )


FILES_RULE = rule("FTA401")
WEIGHTS_RULE = rule("FTA103")
BASE_RULE = rule("FTA301", needs_base=True)
DEEP_RULE = rule("FTA501")


@dataclass(frozen=True, kw_only=True)
class Files(ArtifactDetector):
    """Answers with whatever `answer` yields."""

    rules = (FILES_RULE,)
    answer: Callable[[Subject], Iterable[Observation]] = lambda subject: [FILES_RULE.not_detected("no code")]

    def inspect(self, subject: Subject) -> Iterator[Observation]:
        yield from self.answer(subject)


@dataclass(frozen=True, kw_only=True)
class Weights(WeightDetector):
    """Measures `value` of each delta; detects when one of them is above `threshold`."""

    rules = (WEIGHTS_RULE,)
    threshold: float = 10.0
    measured: Callable[[Any], Mapping[str, float]] = lambda delta: {"value": delta.value}

    def measure(self, delta: Any) -> Mapping[str, float | list[float]]:
        return dict(self.measured(delta))

    def judge(self, table: Measurements, calibration: Any) -> Iterator[Observation]:
        high = {name: value for name, value in table.column("value").items() if value > self.threshold}
        if not high:
            yield WEIGHTS_RULE.not_detected(f"{len(table.column('value'))} modules")
            return
        evidence = [
            Evidence(message="high", value=value, location=Location(tensor=name))
            for name, value in high.items()
        ]
        yield WEIGHTS_RULE.detected("high", confidence=Confidence.MEDIUM, evidence=evidence)


@dataclass(frozen=True, kw_only=True)
class NeedsBase(ArtifactDetector):
    """Has a rule that cannot be answered without a base, and stays silent then."""

    rules = (BASE_RULE,)

    def inspect(self, subject: Subject) -> Iterator[Observation]:
        if subject.base is not None:
            yield BASE_RULE.not_detected("rows are equal")


@dataclass(frozen=True, kw_only=True)
class Deep(ArtifactDetector):
    """Runs in the deep profile only."""

    rules = (DEEP_RULE,)
    profile = Profile.DEEP

    def inspect(self, subject: Subject) -> Iterator[Observation]:
        yield DEEP_RULE.not_detected("no trigger")


def delta(name: str, value: float = 1.0) -> Any:
    return SimpleNamespace(name=name, role="q_proj", layer=0, shape=(4, 4), value=value)


def subject(*, base: bool = False, digest: str = "sha256:aa") -> Subject:
    artifact: Any = SimpleNamespace(digest=digest, resolved="/models/subject", kind=ArtifactKind.ADAPTER)
    other: Any = SimpleNamespace(digest="", resolved="org/base@" + "0" * 40)
    return Subject(
        artifact=artifact, base=other if base else None, base_reason="" if base else "none was declared"
    )
