"""What a report means for the gate: PASS, FAIL or INCONCLUSIVE, and which clause said so.

A policy is a YAML file. Order of judgement: a finding that a `fail` clause names, or a breach of
`provenance`, is FAIL whatever else went wrong; then a required rule without an answer, or anything that
should have been read and could not be, is INCONCLUSIVE; only then PASS.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

from ftsec_audit import user_yaml
from ftsec_audit.types import (
    Confidence,
    Decision,
    Finding,
    NotLookedAt,
    Profile,
    Report,
    Severity,
    Verdict,
)
from ftsec_audit.waiver import ExpiringWaiver, RulePrefix

SHIPPED = ("default", "strict", "permissive")

_PINNED = re.compile(
    r"^(?!s3://).*@([0-9a-f]{40}|[0-9a-f]{64})(/|$)|^models:/+[^/@]+/\d+(/|$)|^s3://.*@[0-9a-f]{64}$",
    re.DOTALL | re.IGNORECASE,
)
"""A full commit, the number of a version in a registry, or the state of a bucket's listing."""


@dataclass(frozen=True, kw_only=True)
class When(user_yaml.Part):
    """The condition under which a requirement holds; all that are given must be met."""

    profile: Profile = Profile.QUICK
    """Holds in this profile and in those that contain it."""
    detected: RulePrefix | None = None
    """Holds where such a rule has detected something: what it leaves open must then be answered."""

    def __str__(self) -> str:
        parts = [f"in profile {self.profile} and above"] if self.profile > Profile.QUICK else []
        parts += [f"where {self.detected} is detected"] if self.detected else []
        return ", ".join(parts)


@dataclass(frozen=True, kw_only=True)
class Requirement(user_yaml.Part):
    """Rules that must have answered. May be written as a bare rule prefix."""

    short_for = "rules"

    rules: RulePrefix
    """A rule id or the beginning of one."""
    when: When | None = None

    def holds(self, report: Report) -> bool:
        when = self.when or When()
        if report.profile < when.profile:
            return False
        named = when.detected
        return named is None or any(finding.rule.startswith(named) for finding in report.detected())


@dataclass(frozen=True, kw_only=True)
class Clause(user_yaml.Part):
    """Which detections are meant: all of the conditions that are given must hold."""

    rules: tuple[RulePrefix, ...] = ()
    """Rule ids, or beginnings of them."""
    severity: Severity | None = None
    """At least this severe."""
    min_confidence: Confidence | None = None
    """At least this certain."""

    def __post_init__(self) -> None:
        if not self.rules and self.severity is None and self.min_confidence is None:
            raise ValueError("a clause needs rules, severity or min_confidence")

    def matches(self, rule: str, severity: Severity, confidence: Confidence) -> bool:
        return (
            (not self.rules or rule.startswith(self.rules))
            and (self.severity is None or severity >= self.severity)
            and (self.min_confidence is None or confidence >= self.min_confidence)
        )

    def __str__(self) -> str:
        parts = [",".join(self.rules)] if self.rules else []
        parts += [f"severity ≥ {self.severity}"] if self.severity else []
        parts += [f"confidence ≥ {self.min_confidence}"] if self.min_confidence else []
        return ", ".join(parts)


@dataclass(frozen=True, kw_only=True)
class Provenance(user_yaml.Part):
    """Where an artifact may come from and what it may be made of."""

    allowed_formats: tuple[str, ...] = ()
    """Suffixes of weight files, e.g. safetensors; empty: any."""
    pinned_revision: bool = False
    """A remote reference must name a full commit or version."""


@dataclass(frozen=True, kw_only=True)
class Triage(user_yaml.Part):
    """Of many artifacts, which are asked more than a first profile: those it does not pass, and these."""

    first: Profile = Profile.QUICK
    """What every artifact is asked first."""
    when: tuple[Clause, ...] = ()
    """Detections that call for everything."""
    min_suspicion: float | None = field(default=None, metadata={"ge": 0, "le": 1})
    """Suspicion from which on everything is asked."""

    def asks_more(
        self,
        verdict: Verdict | None,
        suspicion: float | None,
        detected: Iterable[tuple[str, Severity, Confidence]],
    ) -> bool:
        """Whether an artifact with these first answers is asked everything."""
        return (
            verdict is not Verdict.PASS
            or (self.min_suspicion is not None and (suspicion or 0.0) >= self.min_suspicion)
            or any(clause.matches(*one) for one in detected for clause in self.when)
        )


@dataclass(frozen=True, kw_only=True)
class Override(user_yaml.Part):
    """A severity of one's own for a rule, and why."""

    rule: RulePrefix
    """A rule id or the beginning of one."""
    severity: Severity
    reason: str = field(metadata={"min_length": 1})


@dataclass(frozen=True, kw_only=True)
class Policy(user_yaml.Part):
    """What must be answered, what blocks, what is worth a warning."""

    version: Literal[1]
    name: str = ""
    require: tuple[Requirement, ...] = ()
    fail: tuple[Clause, ...] = ()
    warn: tuple[Clause, ...] = ()
    provenance: Provenance = Provenance()
    overrides: tuple[Override, ...] = ()
    waivers: tuple[ExpiringWaiver, ...] = ()
    """Findings accepted until a day; they stay in the report as suppressed."""
    triage: Triage | None = None
    """Of a batch; without it every artifact is asked everything."""
    on_inconclusive: Literal["inconclusive", "fail"] = "inconclusive"
    """The verdict when a requirement has no answer."""

    @classmethod
    def load(cls, source: str | Path = "default") -> Policy:
        """A shipped policy by name, or a file; raises UsageError with the lines that are wrong."""
        if source == "default":
            return _DEFAULT
        path = cls.path_of(source)
        policy = user_yaml.load(path, cls)
        return policy if policy.name else replace(policy, name=path.name)

    @staticmethod
    def path_of(source: str | Path) -> Path:
        """The file of a policy that is named as in `load`."""
        if str(source) in SHIPPED:
            return Path(__file__).parent / "policies" / f"{source}.yaml"
        return Path(source)

    def with_fail_on(self, severity: Severity | None) -> Policy:
        """This policy blocking from another severity on; None: no finding blocks."""
        if severity is None:
            return replace(self, fail=(), name=f"{self.name} --fail-on never")
        by_severity = [clause for clause in self.fail if clause.severity is not None]
        others = tuple(clause for clause in self.fail if clause.severity is None)
        template = (
            by_severity[0] if by_severity else Clause(severity=severity, min_confidence=Confidence.MEDIUM)
        )
        changed = replace(template, severity=severity)
        return replace(self, fail=(changed, *others), name=f"{self.name} --fail-on {severity}")

    def decide(self, report: Report) -> Decision:
        """The verdict on a report; pure, so stored reports can be judged again."""
        detected = report.detected()
        blocking = [*self._blocking(detected), *self._breaches(report)]
        open_questions = [*self._unanswered(report), *_incomplete(report.not_looked_at)]
        verdict = Verdict.PASS
        if open_questions:
            verdict = Verdict.FAIL if self.on_inconclusive == "fail" else Verdict.INCONCLUSIVE
        if blocking:
            verdict = Verdict.FAIL
        reasons = [
            *blocking,
            *open_questions,
            *self._escalated(open_questions),
            *self._warnings(detected),
            *self._passed_over(detected),
            *self._overridden(detected),
            *_set_aside(report),
        ]
        return Decision(
            verdict=verdict, policy=self.name, reasons=tuple(reasons), policy_digest=self.digest()
        )

    def digest(self) -> str:
        """`sha256:…` over everything the policy says, and its name, whatever its file looks like."""
        content = json.dumps(asdict(self), sort_keys=True, separators=(",", ":"), default=str)  # days
        return f"sha256:{hashlib.sha256(content.encode()).hexdigest()}"

    def severity_of(self, finding: Finding) -> Severity:
        """Severity after overrides; the last one that names the rule counts."""
        named = [o.severity for o in self.overrides if finding.rule.startswith(o.rule)]
        return named[-1] if named else finding.severity

    def _named_by(self, clauses: tuple[Clause, ...], finding: Finding) -> int | None:
        """The number of the first clause that names a detection."""
        severity = self.severity_of(finding)
        for number, clause in enumerate(clauses):
            if clause.matches(finding.rule, severity, finding.confidence):
                return number
        return None

    def _blocking(self, detected: tuple[Finding, ...]) -> Iterator[str]:
        for finding in detected:
            number = self._named_by(self.fail, finding)
            if number is not None:
                yield f"fail[{number}] ({self.fail[number]}): {self._describe(finding)}"

    def _warnings(self, detected: tuple[Finding, ...]) -> Iterator[str]:
        for finding in detected:
            number = self._named_by(self.warn, finding)
            if number is not None and self._named_by(self.fail, finding) is None:
                yield f"warn[{number}] ({self.warn[number]}): {self._describe(finding)}"

    def _passed_over(self, detected: tuple[Finding, ...]) -> Iterator[str]:
        for finding in detected:
            if self._named_by(self.fail, finding) is None and self._named_by(self.warn, finding) is None:
                yield f"no clause: {self._describe(finding)}; neither fail nor warn names it"

    def _escalated(self, open_questions: list[str]) -> Iterator[str]:
        if open_questions and self.on_inconclusive == "fail":
            yield f"on_inconclusive (fail): what is open above ({len(open_questions)}) counts as failed"

    def _describe(self, finding: Finding) -> str:
        return f"{finding.rule} is {self.severity_of(finding)}, confidence {finding.confidence}"

    def _overridden(self, detected: tuple[Finding, ...]) -> Iterator[str]:
        for number, override in enumerate(self.overrides):
            if any(finding.rule.startswith(override.rule) for finding in detected):
                yield f"overrides[{number}]: {override.rule} counts as {override.severity}: {override.reason}"

    def _breaches(self, report: Report) -> Iterator[str]:
        allowed = self.provenance.allowed_formats
        for file in report.artifact.files:
            if allowed and file.format in _WEIGHT_FORMATS and file.format not in allowed:
                names = ", ".join(allowed)
                yield f"provenance.allowed_formats: {file.path} is {file.format}, allowed: {names}"
        reference = report.artifact.reference
        if self.provenance.pinned_revision and _is_remote(report) and not _PINNED.search(reference):
            yield f"provenance.pinned_revision: {reference} names no full commit or version"

    def _unanswered(self, report: Report) -> Iterator[str]:
        suppressed = tuple(entry.finding for entry in report.suppressed)
        for number, requirement in enumerate(self.require):
            if not requirement.holds(report):
                continue
            clause = f"require[{number}] ({requirement.rules})"
            asked = [f for f in (*report.findings, *suppressed) if f.rule.startswith(requirement.rules)]
            if not asked:
                yield f"{clause}: no rule was run"
            for finding in asked:
                if not finding.outcome.is_answer:
                    yield f"{clause}: {finding.rule} has no answer ({finding.outcome}): {finding.summary}"


_DEFAULT = Policy(
    version=1,
    name="default",
    require=(
        Requirement(rules="FTA1"),
        Requirement(rules="FTA4"),
        Requirement(rules="FTA3", when=When(profile=Profile.STANDARD)),
        Requirement(rules="FTA510", when=When(detected="FTA204")),
    ),
    fail=(Clause(severity=Severity.HIGH, min_confidence=Confidence.MEDIUM),),
    warn=(Clause(severity=Severity.MEDIUM),),
)
"""What `policies/default.yaml` says (a test compares them), for scans that read no file."""

_WEIGHT_FORMATS = frozenset(
    (
        *("safetensors", "bin", "pt", "pth", "ckpt", "pkl", "pickle", "joblib", "npy", "npz"),
        *("gguf", "ggml", "onnx", "h5", "keras", "pb", "tflite", "msgpack", "nemo", "mar"),
    )
)
"""File suffixes under which weights, or the objects saved beside them, travel."""


def _incomplete(entries: tuple[NotLookedAt, ...]) -> Iterator[str]:
    for entry in entries:
        if entry.incomplete:
            yield f"incomplete: {entry.what}: {entry.reason}"


def _set_aside(report: Report) -> Iterator[str]:
    for entry in report.suppressed:
        clause = entry.by or "accepted"
        yield f"{clause}: {entry.finding.rule} does not count: {entry.statement}"


def _is_remote(report: Report) -> bool:
    return not Path(report.artifact.resolved).is_absolute()
