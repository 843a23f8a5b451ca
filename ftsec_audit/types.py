"""The values that travel through an audit: rules, findings, evidence, leads, reports.

Everything here is frozen, imports the standard library alone, and serialises to JSON without
help. Nothing here knows where a number came from or how it will be shown.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import total_ordering
from typing import Any

from ftsec_audit.module_measurements import ModuleMeasurement as ModuleMeasurement
from ftsec_audit.module_measurements import ModuleMeasurements


@total_ordering
class _Ordered(StrEnum):
    """A string enum whose members compare by the order in which they are written, lowest first."""

    @property
    def level(self) -> int:
        return list(type(self)).index(self)

    def __lt__(self, other: object) -> bool:
        if not isinstance(other, type(self)):
            return NotImplemented
        return self.level < other.level

    # `total_ordering` keeps the comparisons that `str` already defines, so they are spelled out.
    def __le__(self, other: object) -> bool:
        return self == other or self.__lt__(other)

    def __gt__(self, other: object) -> bool:
        return not self.__le__(other)

    def __ge__(self, other: object) -> bool:
        return not self.__lt__(other)


class Severity(_Ordered):
    """How bad it would be if the finding is true."""

    INFO = "info"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"


class Confidence(_Ordered):
    """How sure the evidence makes us.

    HIGH takes an exact structural fact or behavioural confirmation; a statistic of the weights alone
    is at most MEDIUM, and LOW where no sufficient benign population exists.
    """

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


class Outcome(StrEnum):
    """The answer to a rule's question; yes (`DETECTED`) is always the suspicious side."""

    DETECTED = "detected"
    NOT_DETECTED = "not_detected"
    NOT_APPLICABLE = "not_applicable"
    NOT_SUPPORTED = "not_supported"
    ERROR = "error"

    @property
    def is_answer(self) -> bool:
        """Whether the question was settled, as opposed to left open."""
        return self not in (Outcome.NOT_SUPPORTED, Outcome.ERROR)


class Verdict(StrEnum):
    """What a policy concludes from a report's findings."""

    PASS = "pass"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


class Profile(_Ordered):
    """How much of the suite runs: each profile contains the ones before it."""

    QUICK = "quick"
    STANDARD = "standard"
    DEEP = "deep"


class Family(StrEnum):
    """The family of a rule, spelled by the hundreds digit of its id."""

    STRUCTURE = "structure"
    SPECTRAL = "spectral"
    EMBEDDING = "embedding"
    ARTIFACT = "artifact"
    BACKDOOR = "backdoor"
    CROSS_LINGUAL = "cross-lingual"
    ALIGNMENT = "alignment"


_FAMILY_BY_DIGIT = dict(zip("1234567", Family, strict=True))


@dataclass(frozen=True, kw_only=True)
class Location:
    """Where a piece of evidence lies; strings come from the artifact and are hostile."""

    file: str = ""
    tensor: str = ""
    offset: int | None = None
    line: int | None = None


@dataclass(frozen=True, kw_only=True)
class Population:
    """The benign population a number was judged against."""

    id: str
    """Name and version of the calibration pack."""
    stratum: str
    """Which part of the pack was comparable, e.g. `llama · lora · r 9-16`."""
    n: int
    """How many benign artifacts that part holds, after leaving out the subject's own repository."""
    quantile: float | None = None
    """Share of the population below the value, 0..1."""
    band: tuple[float, float] | None = None
    """5th and 95th percentile of the population for this statistic."""


@dataclass(frozen=True, kw_only=True)
class ProbePrompt:
    """A prompt of a probe set that a model was asked."""

    id: str
    """`set@version/language/kind/number`; the first of a kind is number 1."""
    text: str = ""
    """Only where the texts of prompts were asked for (`--show-prompts`)."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """One thing that was measured or read, with its number and its place."""

    message: str
    """What was measured, in words and numbers; never an adjective."""
    statistic: str = ""
    value: float | None = None
    unit: str = ""
    interval: tuple[float, float] | None = None
    location: Location = Location()
    population: Population | None = None
    excerpt: str = ""
    """A short piece of the artifact itself, raw: every format escapes it."""
    prompts: tuple[ProbePrompt, ...] = ()
    """Prompts that it rests on most."""
    details: dict[str, Any] = field(default_factory=dict)
    """Further JSON values by name, e.g. `trigger`, `target`, `attack_success_rate`."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A detector's answer to one rule."""

    rule: str
    outcome: Outcome
    severity: Severity
    confidence: Confidence
    summary: str
    """One line: what was found, or why there is no answer."""
    p_value: float | None = None
    evidence: tuple[Evidence, ...] = ()
    remediation: str = ""
    detector: str = ""
    """`Name@version:fingerprint` of the detector that answered; filled in by the runner."""


@dataclass(frozen=True, kw_only=True)
class Lead:
    """What a static detector hands to the probes: something worth trying, never a verdict."""

    kind: str
    """`token`, `phrase`, `layer`, `target`, `language` or `topic`."""
    value: str
    score: float = 0.0
    source: str = ""
    """The rule that proposed it."""
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class NotLookedAt:
    """Something an audit did not examine; never to be mistaken for clean."""

    what: str
    reason: str
    incomplete: bool = False
    """True when it should have been read and could not be: the verdict cannot be PASS."""


Observation = Finding | Lead | NotLookedAt


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One yes/no question about a subject. Yes is always the suspicious side."""

    id: str
    name: str
    question: str
    severity: Severity
    """Severity of a detection unless the finding argues for another one."""
    remediation: str
    needs_base: bool = False

    @property
    def family(self) -> Family:
        return _FAMILY_BY_DIGIT[self.id.removeprefix("FTA")[0]]

    def detected(
        self,
        summary: str,
        *,
        confidence: Confidence,
        evidence: Iterable[Evidence],
        severity: Severity | None = None,
        p_value: float | None = None,
    ) -> Finding:
        return Finding(
            rule=self.id,
            outcome=Outcome.DETECTED,
            severity=severity or self.severity,
            confidence=confidence,
            summary=summary,
            p_value=p_value,
            evidence=tuple(evidence),
            remediation=self.remediation,
        )

    def not_detected(
        self,
        summary: str,
        *,
        confidence: Confidence = Confidence.HIGH,
        evidence: Iterable[Evidence] = (),
        p_value: float | None = None,
    ) -> Finding:
        return replace(
            self.unanswered(Outcome.NOT_DETECTED, summary),
            confidence=confidence,
            evidence=tuple(evidence),
            p_value=p_value,
        )

    def not_applicable(self, reason: str) -> Finding:
        return self.unanswered(Outcome.NOT_APPLICABLE, reason)

    def not_supported(self, reason: str) -> Finding:
        return self.unanswered(Outcome.NOT_SUPPORTED, reason)

    def unanswered(self, outcome: Outcome, reason: str) -> Finding:
        """A finding that accuses nobody: severity INFO, and the reason as its summary."""
        return Finding(
            rule=self.id,
            outcome=outcome,
            severity=Severity.INFO,
            confidence=Confidence.HIGH,
            summary=reason,
        )


@dataclass(frozen=True, kw_only=True)
class FileRecord:
    """One file of an artifact, as the report lists it."""

    path: str
    size: int
    digest: str = ""
    """`sha256:…` where it was known or computed, else empty."""
    format: str = ""


@dataclass(frozen=True, kw_only=True)
class ArtifactCard:
    """What was audited: enough to find exactly these bytes again."""

    reference: str
    """As the user wrote it."""
    resolved: str
    """With the commit or digest it was pinned to."""
    digest: str = ""
    kind: str = ""
    description: str = ""
    """One line for people, e.g. `LoRA r=16 (q,k,v,o)`."""
    base_reference: str = ""
    """The base the artifact itself declares."""
    files: tuple[FileRecord, ...] = ()
    declared: dict[str, list[str]] = field(default_factory=dict)
    """What its model card says of itself: licence, language, datasets … Hostile, and only its claim."""


@dataclass(frozen=True, kw_only=True)
class Suspicion:
    """1 − fused p-value, for ranking a batch; never a verdict."""

    total: float | None = None
    families: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What a policy made of the findings, and because of which of its clauses."""

    verdict: Verdict
    policy: str
    reasons: tuple[str, ...] = ()
    policy_digest: str = ""
    """`sha256:…` of the policy as canonical JSON, with what the command line changed in it."""


@dataclass(frozen=True, kw_only=True)
class Suppressed:
    """A finding set aside by a policy, an ignore file or a baseline, kept for the record."""

    finding: Finding
    statement: str
    by: str = ""
    """What set it aside: `waivers[0]` of the policy, `ignore[2]` of the ignore file, or `baseline`."""


@dataclass(frozen=True, kw_only=True)
class SpectrumBand:
    """What the spectra of comparable benign updates of one module type look like, or why that is unknown."""

    role: str
    """The module type."""
    block: str
    """`attention`, `mlp`, …: the part of the transformer that these modules belong to."""
    rank: int
    """How many singular values the updates have."""
    population: Population
    """The artifacts; their number counts those with such modules of this rank."""
    repositories: int
    """How many repositories these are of: each weighs the same."""
    low: tuple[float, ...] = ()
    """10th percentile of σᵢ²/Σσ² at each position i, largest value first; empty where there is no band."""
    median: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    """90th percentile."""
    missing: str = ""
    """Why there is no band."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """The whole result of one scan. Everything a format needs; nothing a format adds."""

    tool_version: str
    artifact: ArtifactCard
    base: ArtifactCard | None
    profile: Profile
    decision: Decision
    findings: tuple[Finding, ...]
    rules: tuple[Rule, ...] = ()
    """The questions that were asked, so that a stored report explains itself, third-party rules included."""
    leads: tuple[Lead, ...] = ()
    not_looked_at: tuple[NotLookedAt, ...] = ()
    suppressed: tuple[Suppressed, ...] = ()
    suspicion: Suspicion = Suspicion()
    measurements: ModuleMeasurements = field(default_factory=ModuleMeasurements)
    benign_spectra: tuple[SpectrumBand, ...] = ()
    """What the measured spectra are drawn over, by module type and rank."""
    limits: tuple[str, ...] = ()
    """What bounded the power of this scan: quantised, no base, small bank, skipped languages."""
    command: str = ""
    """The command line that reproduces this report."""
    listed_at: Location | None = None
    """The file and the line in which a list of models names the artifact."""
    seed: int = 0
    schema_version: str = "1.0"

    def __post_init__(self) -> None:
        object.__setattr__(self, "measurements", ModuleMeasurements(self.measurements))

    @property
    def verdict(self) -> Verdict:
        return self.decision.verdict

    def detected(self) -> tuple[Finding, ...]:
        """Detections, most severe and most certain first."""
        hits = [finding for finding in self.findings if finding.outcome is Outcome.DETECTED]
        return tuple(sorted(hits, key=lambda f: (-f.severity.level, -f.confidence.level, f.rule)))
