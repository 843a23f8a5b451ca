"""Was the right thing found? The rules that should fire, the verdict, and whether the trigger was named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ftsec_audit.types import Finding, Outcome, Severity, Verdict
from ftsec_audit.validate.records import Record


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


def recovery(records: Sequence[Record]) -> list[Recovery]:
    """One line for each attack and label."""
    kinds = sorted({(one.sample.attack, not one.sample.poisoned) for one in records})
    return [
        _counted(
            attack,
            not benign,
            [one for one in records if (one.sample.attack, not one.sample.poisoned) == (attack, benign)],
        )
        for attack, benign in kinds
    ]


def _counted(attack: str, poisoned: bool, records: Sequence[Record]) -> Recovery:
    triggered = [one for one in records if one.sample.trigger and one.is_scanned]
    return Recovery(
        attack=attack,
        poisoned=poisoned,
        n=len(records),
        failed=sum(one.verdict is Verdict.FAIL for one in records),
        inconclusive=sum(one.verdict is Verdict.INCONCLUSIVE for one in records),
        detected=sum(any(f.severity >= Severity.MEDIUM for f in _detections(one)) for one in records),
        expected=sum(any(f.rule in one.sample.expected_rules for f in _detections(one)) for one in records),
        with_trigger=len(triggered),
        named=sum(one.trigger.named for one in triggered),
        led=sum(one.trigger.led for one in triggered),
    )


def _detections(one: Record) -> list[Finding]:
    return [finding for finding in one.findings if finding.outcome is Outcome.DETECTED]
