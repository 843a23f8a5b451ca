"""Rules about single files: the base of those that ask the file survey, and their findings."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from ftsec_audit.contracts import ArtifactDetector, Subject
from ftsec_audit.formats.facts import Fact, FileFacts
from ftsec_audit.formats.survey import survey
from ftsec_audit.formats.walk import SurveyLimits
from ftsec_audit.types import Confidence, Evidence, Finding, Location, Observation, Rule, Severity

_SHOWN = 12
"""Pieces of evidence in one finding; the summary counts all."""
_EXCERPT = 200

Trait = tuple[str, str, Severity]
"""Something said of a file or of a part of the artifact: predicate, excerpt, severity."""


@dataclass(frozen=True, kw_only=True)
class SurveyDetector(ArtifactDetector):
    """One rule, answered from the facts of the file survey: a detection per file that gives any."""

    clean: ClassVar[str]
    """The answer without a detection; `{n}` is the sum of `asked`."""
    absent: ClassVar[str] = ""
    """Why the rule is not applicable when nothing was asked about; empty: it always applies."""

    limits: SurveyLimits = field(default_factory=SurveyLimits)

    @abstractmethod
    def found(self, facts: FileFacts) -> Sequence[Fact]:
        """What is wrong with one file, in the eyes of this rule."""

    def asked(self, facts: FileFacts) -> int:
        """How many things the rule is about in one file, 0 when it is of another kind."""
        return 1

    def inspect(self, subject: Subject) -> Iterator[Observation]:
        (rule,) = self.rules
        asked, flagged = 0, False
        for facts in survey(subject.artifact, self.limits).files:
            found = self.found(facts)
            asked += self.asked(facts)
            if found:
                flagged = True
                yield self.finding(facts.file.path, found)
        if not flagged and self.absent and not asked:
            yield rule.not_applicable(self.absent)
        elif not flagged:
            yield rule.not_detected(self.clean.format(n=asked))

    def finding(self, path: str, found: Sequence[Fact]) -> Finding:
        """The consolidated detection for one file, the worst fact first."""
        ordered = sorted(found, key=lambda fact: -fact.severity.level)
        return self.rules[0].detected(
            self.summary(path, ordered),
            confidence=Confidence.HIGH,
            severity=ordered[0].severity,
            evidence=[_evidence(path, fact) for fact in ordered[:_SHOWN]],
        )

    def summary(self, path: str, ordered: Sequence[Fact]) -> str:
        more = f" (and {len(ordered) - 1} more)" if len(ordered) > 1 else ""
        return f"{path}: {ordered[0].message}{more}"


def described(rule: Rule, what: str, file: str, traits: Sequence[Trait]) -> Finding:
    """The detection that `what`, which stands in `file`, has these traits; the first one is the summary."""
    return rule.detected(
        f"{what} {traits[0][0]}",
        confidence=Confidence.HIGH,
        severity=max(severity for _, _, severity in traits),
        evidence=[
            Evidence(message=message, location=Location(file=file), excerpt=excerpt[:_EXCERPT])
            for message, excerpt, _ in traits
        ],
    )


def _evidence(path: str, fact: Fact) -> Evidence:
    details: dict[str, object] = {"code": fact.code}
    if fact.member:
        details["member"] = fact.member
    return Evidence(
        message=fact.message,
        location=Location(file=path, offset=fact.offset),
        excerpt=fact.excerpt,
        details=details,
    )
