"""Runs detectors over one subject: files, one pass over the tensors, every judge, then the probes.

The runner knows the contracts only. Whatever happens inside a detector ends as an outcome of that
detector's rules; a scan that is stopped half-way keeps what was found and says what was not looked at.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from ftsec_audit.contracts import (
    ArtifactDetector,
    BehaviourDetector,
    Detector,
    Measurements,
    Progress,
    Subject,
    WeightDetector,
)
from ftsec_audit.errors import FtsecError
from ftsec_audit.types import (
    Finding,
    Lead,
    ModuleMeasurement,
    NotLookedAt,
    Observation,
    Outcome,
    Profile,
    Rule,
    Severity,
)
from ftsec_audit.weighing import Deadline, Deltas, Gap, OutOfTime, Weighing, outcome_of

if TYPE_CHECKING:
    from ftsec_audit.calibration.bank import Calibration
    from ftsec_audit.measurement_cache import MeasurementCache
    from ftsec_audit.session import Sessions

INTERRUPTED = "interrupted"

OpenSessions = Callable[[float | None], AbstractContextManager["Sessions"]]
"""Loads the subject and its base, for at most so many seconds of probing."""

_CODE_RULES = ("FTA40", "FTA411", "FTA42", "FTA431")
"""Rules whose detection means that loading the artifact may execute code."""

_LOG = logging.getLogger("ftsec_audit")
_LONGEST_MESSAGE = 300


@dataclass(frozen=True, kw_only=True)
class Audit:
    """What the detectors said, in an order that depends on nothing but their answers."""

    findings: tuple[Finding, ...]
    leads: tuple[Lead, ...]
    not_looked_at: tuple[NotLookedAt, ...]
    measurements: tuple[ModuleMeasurement, ...]


def run(
    subject: Subject,
    detectors: Sequence[Detector],
    calibration: Calibration,
    *,
    profile: Profile,
    stream: Deltas,
    deselected: frozenset[str] = frozenset(),
    beyond: Mapping[str, Profile] = MappingProxyType({}),
    progress: Progress | None = None,
    max_seconds: float | None = None,
    cache: MeasurementCache | None = None,
    sessions: OpenSessions | None = None,
) -> Audit:
    """Every detector's answers about `subject`; `sessions` opens its model once all else is known.

    Rules of `deselected` are not asked; detectors above `profile` are not run, and `beyond` names the rules
    of those that were not even given. Ctrl-C, a used-up budget or a failing detector end in outcomes, never
    in an exception.
    """
    scan = _Scan(
        subject=subject,
        calibration=calibration,
        profile=profile,
        deselected=deselected,
        progress=progress or Progress(),
        deadline=Deadline(seconds=max_seconds),
        not_looked_at=[_beyond(rule, profile) for rule, profile in beyond.items()],
    )
    planned = [detector for detector in detectors if scan.plans(detector)]
    try:
        for detector in planned:
            if isinstance(detector, ArtifactDetector):
                scan.inspect(detector)
        weight_detectors = [d for d in planned if isinstance(d, WeightDetector)]
        if weight_detectors:
            scan.weigh(weight_detectors, stream, cache)
        behaviour_detectors = [d for d in planned if isinstance(d, BehaviourDetector)]
        if behaviour_detectors:
            scan.probe(behaviour_detectors, sessions)
    except KeyboardInterrupt:
        scan.stop(INTERRUPTED)
    except OutOfTime as error:
        scan.stop(str(error))
    return scan.close(planned)


@dataclass(kw_only=True)
class _Scan:
    """The state of one run: what was answered so far, and why it stopped if it did."""

    subject: Subject
    calibration: Calibration
    profile: Profile
    deselected: frozenset[str]
    progress: Progress
    deadline: Deadline
    findings: list[Finding] = field(default_factory=list)
    leads: list[Lead] = field(default_factory=list)
    not_looked_at: list[NotLookedAt] = field(default_factory=list)
    modules: tuple[ModuleMeasurement, ...] = ()
    stopped: str = ""

    def plans(self, detector: Detector) -> bool:
        """Whether the detector runs; whatever is left out is put on record."""
        asked = [rule for rule in detector.rules if rule.id not in self.deselected]
        for rule in detector.rules:
            if rule.id in self.deselected:
                self._record(detector, rule.not_supported("left out by --select or --ignore"))
        if type(detector).profile <= self.profile:
            return bool(asked)
        self.not_looked_at += [_beyond(rule.id, type(detector).profile) for rule in asked]
        return False

    def inspect(self, detector: ArtifactDetector) -> None:
        self.deadline.check()
        self.progress.note(f"inspecting: {detector.name}")
        self._collect(detector, lambda: detector.inspect(self.subject))

    def weigh(
        self, detectors: Sequence[WeightDetector], stream: Deltas, cache: MeasurementCache | None
    ) -> None:
        """Measure in one pass what is not cached, then let every detector judge the whole table."""
        weighing = Weighing(subject=self.subject, deadline=self.deadline, progress=self.progress, cache=cache)
        try:
            weighing.measure(detectors, stream)
        finally:
            self.modules = weighing.modules()
        table = Measurements(modules=self.modules, subject=self.subject)
        for detector in detectors:
            self.deadline.check()
            self._collect(
                detector,
                lambda detector=detector: detector.judge(table, self.calibration),  # type: ignore[misc]
                gap=weighing.gap(detector),
            )

    def probe(self, detectors: Sequence[BehaviourDetector], sessions: OpenSessions | None) -> None:
        """Open subject and base once and let each detector question them, with the leads found so far."""
        askable = [d for d in detectors if not all(self._needs_absent_base(rule) for rule in d.rules)]
        refusal = Outcome.NOT_SUPPORTED, self._reason_not_to_load() or "no model was opened"
        if sessions is None or self._reason_not_to_load():
            self._unanswered_all(askable, *refusal)
            return
        self.deadline.check()
        if not askable:
            return
        opened = False
        try:
            with sessions(self.deadline.left) as pair:
                opened = True
                self.progress.start("probing", len(askable), "probes")
                for detector in askable:
                    self.deadline.check()
                    self._collect(
                        detector,
                        lambda detector=detector: detector.probe(  # type: ignore[misc]
                            pair.subject, pair.base, tuple(self.leads)
                        ),
                    )
                    self.progress.advance()
        except OutOfTime:
            raise
        except FtsecError as error:
            self._unanswered_all(askable, outcome_of(error), str(error))
        except Exception as error:
            if opened:
                raise
            _LOG.debug("opening the model failed", exc_info=True)
            reason = f"{type(error).__name__} while opening the model: {error}"[:_LONGEST_MESSAGE]
            self._unanswered_all(askable, Outcome.ERROR, reason)

    def _reason_not_to_load(self) -> str:
        """Which file check found that loading may execute code; empty when none did."""
        for finding in self.findings:
            is_code = finding.rule.startswith(_CODE_RULES) and finding.severity >= Severity.HIGH
            if is_code and finding.outcome is Outcome.DETECTED:
                return f"not loaded, because of {finding.rule}: {finding.summary}"
        return ""

    def _unanswered_all(self, detectors: Iterable[Detector], outcome: Outcome, reason: str) -> None:
        for detector in detectors:
            for rule in detector.rules:
                if rule.id not in self.deselected:
                    self._record(detector, rule.unanswered(outcome, reason))

    def stop(self, reason: str) -> None:
        self.stopped = reason
        self.not_looked_at.append(NotLookedAt(what="the rest of the scan", reason=reason, incomplete=True))

    def close(self, planned: Sequence[Detector]) -> Audit:
        """Fill in the answers that are missing, and put everything into its final order."""
        answered = {finding.rule for finding in self.findings}
        for detector in planned:
            for rule in detector.rules:
                if rule.id not in answered:
                    self._answer_missing(detector, rule)
        return Audit(
            findings=tuple(sorted(self.findings, key=_finding_order)),
            leads=tuple(sorted(self.leads, key=lambda lead: (-lead.score, lead.kind, lead.value))),
            not_looked_at=tuple(sorted(set(self.not_looked_at), key=lambda e: (e.what, e.reason))),
            measurements=self.modules,
        )

    def _collect(
        self, detector: Detector, produce: Callable[[], Iterable[Observation]], *, gap: Gap | None = None
    ) -> None:
        """Take the detector's answers; one that fails answers its remaining rules with the failure."""
        answered: set[str] = set()
        failure = None
        try:
            for observation in produce():
                if isinstance(observation, Finding):
                    answered.add(_own_rule(detector, observation))
                self._take(detector, observation, gap)
        except FtsecError as error:
            failure = outcome_of(error), str(error)
        except Exception as error:  # noqa: BLE001 - the one place where a detector's bug becomes an outcome
            _LOG.debug("detector %s failed", detector.label, exc_info=True)
            failure = Outcome.ERROR, f"{type(error).__name__} in {detector.name}: {error}"[:_LONGEST_MESSAGE]
        if failure:
            for rule in detector.rules:
                if rule.id not in answered | self.deselected:
                    self._record(detector, rule.unanswered(*failure))

    def _take(self, detector: Detector, observation: Observation, gap: Gap | None) -> None:
        if isinstance(observation, Lead):
            self.leads.append(observation)
        elif isinstance(observation, NotLookedAt):
            self.not_looked_at.append(observation)
        elif observation.rule not in self.deselected and not self._outside_profile(detector, observation):
            self._record(detector, gap.applied_to(observation) if gap else observation)

    def _outside_profile(self, detector: Detector, finding: Finding) -> bool:
        """Whether the missing answer is missing because the profile does not fetch a base."""
        rule = next(rule for rule in detector.rules if rule.id == finding.rule)
        return not finding.outcome.is_answer and self._needs_absent_base(rule) and self._is_quick

    def _answer_missing(self, detector: Detector, rule: Rule) -> None:
        if self._needs_absent_base(rule) and self._is_quick:
            reason = "needs the base model, which the quick profile does not fetch"
            self.not_looked_at.append(NotLookedAt(what=rule.id, reason=reason))
        elif rule.id in self.deselected:
            return
        elif self.stopped:
            self._record(detector, rule.not_supported(self.stopped))
        elif self._needs_absent_base(rule):
            self._record(detector, rule.not_supported(self.subject.base_reason))
        else:
            self._record(detector, rule.unanswered(Outcome.ERROR, f"{detector.name} gave no answer"))

    def _needs_absent_base(self, rule: Rule) -> bool:
        return rule.needs_base and self.subject.base is None

    @property
    def _is_quick(self) -> bool:
        return self.profile is Profile.QUICK

    def _record(self, detector: Detector, finding: Finding) -> None:
        self.findings.append(replace(finding, detector=detector.label))


def _beyond(rule: str, profile: Profile) -> NotLookedAt:
    return NotLookedAt(what=rule, reason=f"runs from profile {profile} on")


def _own_rule(detector: Detector, finding: Finding) -> str:
    if all(finding.rule != rule.id for rule in detector.rules):
        raise ValueError(f"answered {finding.rule}, which is not one of its rules")
    return finding.rule


def _finding_order(finding: Finding) -> tuple[object, ...]:
    place = finding.evidence[0].location if finding.evidence else None
    where = (place.file, place.tensor, place.offset or 0) if place else ("", "", 0)
    return finding.rule, -finding.severity.level, where, finding.summary
