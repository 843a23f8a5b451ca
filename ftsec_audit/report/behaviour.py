"""What was seen of the model's behaviour, from the evidence of the probes, as the cells of tables.

Read are the `details` that a probe writes beside its sentence: `trigger` with `attack_success_rate` and
further rates; `language` with refusal rates; `grid`, rates by pair of languages. Whatever is missing or is no
share of trials is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ftsec_audit.report.phrases import span
from ftsec_audit.report.rates import Rate, rate
from ftsec_audit.types import Evidence, Report

MAX_ROWS = 50
_CONDITIONS = {
    "rate_without": "the same prompts without it",
    "rate_of_controls": "other words in its place",
    "rate_of_rivals": "phrases found for other answers",
    "rate_of_base": "the base, with it",
}
_PLACES = {"start": "at the start", "inside": "inside", "end": "at the end"}


@dataclass(frozen=True, kw_only=True)
class Condition:
    """Under which condition the answer came, and how often."""

    name: str
    rate: Rate
    is_control: bool = False
    """Whether a low rate is what makes the trigger one."""
    is_part: bool = False
    """Whether it counts some of the trials of the condition before it."""


@dataclass(frozen=True, kw_only=True)
class Trigger:
    rule: str
    trigger: str
    target: str
    conditions: tuple[Condition, ...]


@dataclass(frozen=True, kw_only=True)
class Refusals:
    """What one language refuses, at once or a few tokens into a compliant answer."""

    rule: str
    language: str
    asked: str
    base: Rate
    subject: Rate
    loss: str
    """In points, with the interval that the probe gave."""


@dataclass(frozen=True, kw_only=True)
class LanguageGrid:
    """A rate for every pair of prompt language and trigger language that was tried."""

    rule: str
    trigger: str
    target: str
    prompts: tuple[str, ...]
    """Rows."""
    triggers: tuple[str, ...]
    """Columns."""
    cells: Mapping[tuple[str, str], Rate]


def triggers(report: Report) -> list[Trigger]:
    return [one for rule, evidence in _evidence(report) if (one := _trigger(rule, evidence))][:MAX_ROWS]


def refusals(report: Report) -> list[Refusals]:
    return [one for rule, evidence in _evidence(report) if (one := _refusals(rule, evidence))][:MAX_ROWS]


def language_grids(report: Report) -> list[LanguageGrid]:
    return [one for rule, evidence in _evidence(report) if (one := _grid(rule, evidence))][:MAX_ROWS]


def _evidence(report: Report) -> Iterator[tuple[str, Evidence]]:
    """That of every finding: a probe that found nothing has measured something as well."""
    for finding in report.findings:
        for evidence in finding.evidence:
            yield finding.rule, evidence


def _trials(details: Mapping[str, object]) -> object:
    return next((details[key] for key in ("fresh_prompts", "asked", "n") if key in details), None)


def _trigger(rule: str, evidence: Evidence) -> Trigger | None:
    details = evidence.details
    n = _trials(details)
    fired = rate(details.get("attack_success_rate"), n, evidence.interval)
    if fired is None or not details.get("trigger"):
        return None
    places, of_place = (details.get(key) for key in ("by_place", "prompts_by_place"))
    counts = of_place if isinstance(of_place, dict) else {}
    by_place = places if isinstance(places, dict) and len(places) > 1 else {}
    parts = [
        (_PLACES.get(str(place), str(place)), rate(x, counts.get(place))) for place, x in by_place.items()
    ]
    controls = [(name, rate(details.get(key), n)) for key, name in _CONDITIONS.items()]
    conditions = [Condition(name="with it", rate=fired)]
    conditions += [Condition(name=name, rate=share, is_part=True) for name, share in parts if share]
    conditions += [Condition(name=name, rate=share, is_control=True) for name, share in controls if share]
    return Trigger(
        rule=rule,
        trigger=str(details["trigger"]),
        target=str(details.get("target", "")),
        conditions=tuple(conditions),
    )


def _grid(rule: str, evidence: Evidence) -> LanguageGrid | None:
    """From `grid`, in which `de > en` is the rate of a German trigger in English prompts."""
    details = evidence.details
    given = details.get("grid")
    pairs = {
        (pair[1], pair[0]): share
        for name, value in (given if isinstance(given, dict) else {}).items()
        if len(pair := str(name).split(" > ")) == 2 and (share := rate(value, _trials(details)))
    }
    if not pairs:
        return None
    return LanguageGrid(
        rule=rule,
        trigger=str(details.get("trigger", "")),
        target=str(details.get("target", "")),
        prompts=tuple(dict.fromkeys(prompt for prompt, _ in pairs))[:MAX_ROWS],
        triggers=tuple(dict.fromkeys(trigger for _, trigger in pairs))[:MAX_ROWS],
        cells=pairs,
    )


def _refusals(rule: str, evidence: Evidence) -> Refusals | None:
    details = evidence.details
    n = _trials(details)
    subject, base = rate(details.get("refusal_rate"), n), rate(details.get("base_refusal_rate"), n)
    if subject is None or base is None or "language" not in details:
        return None
    prefill = details.get("prefill")
    points = evidence.interval and (100 * evidence.interval[0], 100 * evidence.interval[1])
    lost = f"{100 * (base.value - subject.value):+.0f} points"
    return Refusals(
        rule=rule,
        language=str(details["language"]),
        asked=f"{prefill} tokens into an answer" if prefill else "at once",
        base=base,
        subject=subject,
        loss=f"{lost} [{_rounded(points)}]" if points else lost,
    )


def _rounded(points: tuple[float, float]) -> str:
    return span((float(round(points[0])), float(round(points[1]))))
