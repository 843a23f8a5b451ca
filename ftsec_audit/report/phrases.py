"""The sentences that the text formats share: numbers, counts, places, and what a verdict means.

Nothing here is escaped; a format escapes what it gets from here as it does any other string.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator

from ftsec_audit.types import Evidence, Finding, Location, Outcome, Population, Report, Severity, Verdict

PASS_MEANS = "A pass means no known indicator was found, not that risk is zero."

_MAX_PROMPTS = 5
"""That are named in a line."""

OUTCOME_NAMES = {
    Outcome.NOT_DETECTED: "clean",
    Outcome.NOT_APPLICABLE: "not applicable",
    Outcome.NOT_SUPPORTED: "not supported",
    Outcome.ERROR: "error",
}


def number(value: float) -> str:
    """Four significant digits, thousands separated; `NaN` and `∞` by name."""
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("∞" if value > 0 else "−∞")
    if value == int(value) and abs(value) < 1e9:
        return f"{int(value):,}"
    if 1e-4 <= abs(value) < 1e5:
        return f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:.4g}"
    return f"{value:.3g}"


def count(n: int, noun: str) -> str:
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def tally(report: Report) -> list[str]:
    """`1 critical`, `1 high`, `21 clean`, `3 not applicable`, `0 errors`: how the rules were answered."""
    severities = Counter(finding.severity for finding in report.detected())
    outcomes = Counter(finding.outcome for finding in report.findings)
    parts = [f"{severities[level]} {level}" for level in reversed(Severity) if severities[level]]
    parts += [
        count(outcomes[outcome], name) if outcome is Outcome.ERROR else f"{outcomes[outcome]} {name}"
        for outcome, name in OUTCOME_NAMES.items()
        if outcomes[outcome] or outcome in (Outcome.NOT_DETECTED, Outcome.ERROR)
    ]
    return parts + ([f"{len(report.suppressed)} suppressed"] if report.suppressed else [])


def measured(evidence: Evidence) -> str:
    """`sigma_1_share = 0.97 [0.94–0.99]`, or nothing when the evidence is not a number."""
    if evidence.value is None:
        return ""
    text = f"{evidence.statistic or 'value'} = {number(evidence.value)}"
    if evidence.unit:
        text += f" {evidence.unit}"
    return f"{text} [{span(evidence.interval)}]" if evidence.interval else text


def prompts(evidence: Evidence) -> list[str]:
    """`prompts set@1/en/restricted/17, 3, 21 and 7 more`; a line for each that has its text."""
    named, before = [], ""
    for one in evidence.prompts:
        place, _, number = one.id.rpartition("/")
        if not one.text:
            named.append(number if place == before else one.id)
            before = place
    rest = f" and {len(named) - _MAX_PROMPTS:,} more" if len(named) > _MAX_PROMPTS else ""
    head = "prompt" if len(named) == 1 else "prompts"
    lines = [f"{head} {', '.join(named[:_MAX_PROMPTS])}{rest}"] if named else []
    return lines + [f"{one.id}: “{one.text}”" for one in evidence.prompts if one.text]


def span(interval: tuple[float, float]) -> str:
    between = "–" if interval[0] >= 0 else " to "
    return f"{number(interval[0])}{between}{number(interval[1])}"


def against(population: Population) -> str:
    """Where in its benign population a number lies: `above 99.8 % of 412 benign, 5–95 % 0.21–0.61`."""
    text = standing(population)
    return f"{text}, 5–95 % {span(population.band)}" if population.band is not None else text


def standing(population: Population) -> str:
    """`above 99.8 % of 412 benign`."""
    if population.quantile is None:
        return f"compared with {population.n:,} benign"
    if population.quantile == 1:
        return f"above all of {population.n:,} benign"
    return f"above {percent(population.quantile)} of {population.n:,} benign"


def origin(population: Population) -> str:
    """Which benign artifacts those are: `412 × llama · lora · r 9-16, pack shipped-1`."""
    return ", ".join(filter(None, (f"{population.n:,} × {population.stratum}", f"pack {population.id}")))


def origins(finding: Finding) -> list[str]:
    """The benign populations that the evidence of a finding refers to, each once."""
    populations = (evidence.population for evidence in finding.evidence)
    return list(dict.fromkeys(origin(population) for population in populations if population))


def short(reference: str) -> str:
    """A reference with its commit cut to 12 digits."""
    return re.sub(r"@([0-9a-f]{12})[0-9a-f]{28,52}(?=/|$)", r"@\1", reference)


def percent(share: float) -> str:
    """Never rounded up to 100 %, so that a rank below the top does not read as the top."""
    text = f"{100 * share:.3g}"
    return f"{'more than 99.9' if text == '100' and share < 1 else text} %"


def place(location: Location) -> str:
    parts = [location.file, location.tensor]
    parts += [f"line {location.line}"] if location.line is not None else []
    parts += [f"byte {location.offset:,}"] if location.offset is not None else []
    return " · ".join(filter(None, parts))


def p_value(value: float) -> str:
    return f"p = {number(value)}"


def unanswered(report: Report) -> Iterator[Finding]:
    """The rules that were asked and gave no answer."""
    return (finding for finding in report.findings if not finding.outcome.is_answer)


def without_answer(finding: Finding) -> str:
    """`FTA101 not supported: the base could not be resolved`."""
    return f"{finding.rule} {OUTCOME_NAMES[finding.outcome]}: {finding.summary}"


def next_step(report: Report) -> str:
    """The one command that is worth typing after reading this report."""
    detected = report.detected()
    open_questions = list(unanswered(report))
    if detected:
        return f"ftsec-audit explain {detected[0].rule}"
    if report.verdict is Verdict.INCONCLUSIVE and open_questions:
        return f"ftsec-audit explain {open_questions[0].rule}"
    if report.verdict is Verdict.INCONCLUSIVE and report.base is None:
        return "ftsec-audit scan … --base REFERENCE"
    return "ftsec-audit rules"


def rule_names(report: Report) -> dict[str, str]:
    return {rule.id: rule.name for rule in report.rules}


def clipped(name: str, limit: int) -> str:
    """The end of a long name, which tells modules apart better than the beginning."""
    return name if len(name) <= limit else "…" + name[1 - limit :]
