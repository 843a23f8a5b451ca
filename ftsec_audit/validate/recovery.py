"""Was the right thing found? The rules that should fire, the verdict, and whether the trigger was named."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ftsec_audit.types import Outcome, Report, Severity, Verdict
from ftsec_audit.validate.examine import Examined


@dataclass(frozen=True, kw_only=True)
class Recovery:
    """Counts over the samples of one attack, or over its benign twins."""

    attack: str
    poisoned: bool
    n: int
    failed: int
    """Verdict FAIL."""
    inconclusive: int
    detected: int
    """Any detection of MEDIUM severity or more."""
    expected: int
    """A rule that the attack names as expected detected something."""
    with_trigger: int
    """Samples that have a trigger of words."""
    named: int
    """… whose trigger stands, exactly, in the evidence of a detection."""
    led: int
    """… whose trigger is among the leads, whole or as one of its tokens."""


def recovery(examined: Sequence[Examined]) -> list[Recovery]:
    """One line for each attack and label."""
    kinds = sorted({(e.sample.attack, not e.sample.poisoned) for e in examined})
    return [
        _counted(
            attack,
            not benign,
            [e for e in examined if (e.sample.attack, not e.sample.poisoned) == (attack, benign)],
        )
        for attack, benign in kinds
    ]


def _counted(attack: str, poisoned: bool, examined: Sequence[Examined]) -> Recovery:
    done = [(e.sample, e.report) for e in examined if e.report is not None]
    triggered = [(sample.trigger, report) for sample, report in done if sample.trigger]
    return Recovery(
        attack=attack,
        poisoned=poisoned,
        n=len(examined),
        failed=sum(report.verdict is Verdict.FAIL for _, report in done),
        inconclusive=sum(report.verdict is Verdict.INCONCLUSIVE for _, report in done),
        detected=sum(any(f.severity >= Severity.MEDIUM for f in report.detected()) for _, report in done),
        expected=sum(_fired(report, sample.expected_rules) for sample, report in done),
        with_trigger=len(triggered),
        named=sum(any(t in _named(report) for t in trigger) for trigger, report in triggered),
        led=sum(any(_is_led(t, report) for t in trigger) for trigger, report in triggered),
    )


def _fired(report: Report, rules: Sequence[str]) -> bool:
    return any(f.rule in rules and f.outcome is Outcome.DETECTED for f in report.findings)


def _named(report: Report) -> set[str]:
    return set(_evidence_strings(report))


def _evidence_strings(report: Report) -> Iterator[str]:
    for finding in report.detected():
        for evidence in finding.evidence:
            for key in ("trigger", "token"):
                value = evidence.details.get(key)
                yield from (one.strip() for one in ([value] if isinstance(value, str) else value or ()))


def _is_led(trigger: str, report: Report) -> bool:
    leads = {lead.value.strip() for lead in report.leads if lead.kind in ("token", "phrase")}
    return trigger in leads or any(word in leads for word in trigger.split())
