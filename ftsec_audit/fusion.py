"""One number per family for ranking many artifacts. It is never a verdict: policies read findings."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from ftsec_audit.calibration.fusion import cauchy_combination
from ftsec_audit.types import Confidence, Family, Finding, Outcome, Severity, Suspicion


def suspicion(findings: Iterable[Finding]) -> Suspicion:
    """1 − the fused p-value, per family and over the families that have one.

    The p-values of one artifact are dependent, hence the Cauchy combination. A severe detection that is
    an exact fact has no p-value because chance has no part in it; it counts as p = 0.
    """
    by_family: dict[Family, list[float]] = defaultdict(list)
    for finding in findings:
        p_value = 0.0 if _is_exact_fact(finding) else finding.p_value
        if p_value is not None and 0.0 <= p_value <= 1.0:
            by_family[_family(finding.rule)].append(p_value)
    fused = {family: cauchy_combination(p_values) for family, p_values in by_family.items()}
    if not fused:
        return Suspicion()
    total = cauchy_combination(list(fused.values()))
    return Suspicion(total=1.0 - total, families={str(f): 1.0 - p for f, p in sorted(fused.items())})


def _family(rule: str) -> Family:
    return tuple(Family)[int(rule.removeprefix("FTA")[0]) - 1]


def _is_exact_fact(finding: Finding) -> bool:
    return (
        finding.outcome is Outcome.DETECTED
        and finding.p_value is None
        and finding.confidence is Confidence.HIGH
        and finding.severity >= Severity.HIGH
    )
