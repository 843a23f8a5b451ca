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
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler, model_validator

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


class _Part(BaseModel):
    # Built as one with the policy when that is first read, not each part by itself when it is defined.
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


class When(_Part):
    """The condition under which a requirement holds."""

    profile: Profile = Field(description="Holds in this profile and in those that contain it.")


class Requirement(_Part):
    """Rules that must have answered. May be written as a bare rule prefix."""

    rules: RulePrefix
    when: When | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_prefix(cls, value: Any) -> Any:
        return {"rules": value} if isinstance(value, str) else value

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        schema = handler.resolve_ref_schema(handler(core_schema))
        return {
            "anyOf": [schema["properties"]["rules"], schema],
            "description": schema.get("description", ""),
        }

    def holds(self, profile: Profile) -> bool:
        return self.when is None or profile >= self.when.profile


class Clause(_Part):
    """Which detections are meant: all of the conditions that are given must hold."""

    rules: tuple[RulePrefix, ...] = ()
    severity: Severity | None = Field(default=None, description="At least this severe.")
    min_confidence: Confidence | None = Field(default=None, description="At least this certain.")

    @model_validator(mode="after")
    def _says_something(self) -> Clause:
        if not self.rules and self.severity is None and self.min_confidence is None:
            raise ValueError("a clause needs rules, severity or min_confidence")
        return self

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


class Provenance(_Part):
    """Where an artifact may come from and what it may be made of."""

    allowed_formats: tuple[str, ...] = Field(
        default=(), description="Suffixes of weight files, e.g. safetensors; empty: any."
    )
    pinned_revision: bool = Field(
        default=False, description="A remote reference must name a full commit or version."
    )


class Triage(_Part):
    """Of many artifacts, which are asked more than a first profile: those it does not pass, and these."""

    first: Profile = Field(default=Profile.QUICK, description="What every artifact is asked first.")
    when: tuple[Clause, ...] = Field(default=(), description="Detections that call for everything.")
    min_suspicion: float | None = Field(
        default=None, ge=0, le=1, description="Suspicion from which on everything is asked."
    )

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


class Override(_Part):
    """A severity of one's own for a rule, and why."""

    rule: RulePrefix
    severity: Severity
    reason: str = Field(min_length=1)


class Policy(_Part):
    """What must be answered, what blocks, what is worth a warning."""

    version: Literal[1]
    name: str = ""
    require: tuple[Requirement, ...] = ()
    fail: tuple[Clause, ...] = ()
    warn: tuple[Clause, ...] = ()
    provenance: Provenance = Provenance()
    overrides: tuple[Override, ...] = ()
    waivers: tuple[ExpiringWaiver, ...] = Field(
        default=(), description="Findings accepted until a day; they stay in the report as suppressed."
    )
    triage: Triage | None = Field(
        default=None, description="Of a batch; without it every artifact is asked everything."
    )
    on_inconclusive: Literal["inconclusive", "fail"] = Field(
        default="inconclusive", description="The verdict when a requirement has no answer."
    )

    @classmethod
    def load(cls, source: str | Path = "default") -> Policy:
        """A shipped policy by name, or a file; raises UsageError with the lines that are wrong."""
        path = cls.path_of(source)
        policy = user_yaml.load(path, cls)
        return policy if policy.name else policy.model_copy(update={"name": path.name})

    @staticmethod
    def path_of(source: str | Path) -> Path:
        """The file of a policy that is named as in `load`."""
        if str(source) in SHIPPED:
            return Path(__file__).parent / "policies" / f"{source}.yaml"
        return Path(source)

    def with_fail_on(self, severity: Severity | None) -> Policy:
        """This policy blocking from another severity on; None: no finding blocks."""
        if severity is None:
            return self.model_copy(update={"fail": (), "name": f"{self.name} --fail-on never"})
        by_severity = [clause for clause in self.fail if clause.severity is not None]
        others = tuple(clause for clause in self.fail if clause.severity is None)
        template = (
            by_severity[0] if by_severity else Clause(severity=severity, min_confidence=Confidence.MEDIUM)
        )
        changed = template.model_copy(update={"severity": severity})
        return self.model_copy(
            update={"fail": (changed, *others), "name": f"{self.name} --fail-on {severity}"},
        )

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
        content = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
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
            if not requirement.holds(report.profile):
                continue
            clause = f"require[{number}] ({requirement.rules})"
            asked = [f for f in (*report.findings, *suppressed) if f.rule.startswith(requirement.rules)]
            if not asked:
                yield f"{clause}: no rule was run"
            for finding in asked:
                if not finding.outcome.is_answer:
                    yield f"{clause}: {finding.rule} has no answer ({finding.outcome}): {finding.summary}"


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
