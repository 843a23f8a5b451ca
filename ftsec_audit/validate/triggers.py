"""Was the trigger found? Its place among the candidates, and whether a detection names it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import permutations

from ftsec_audit.types import Report
from ftsec_audit.validate.population import Located

_RANKED_BY = "FTA304"
_MOST_KEYS = 4


@dataclass(frozen=True, kw_only=True)
class Recovered:
    """What became of the trigger words of one sample."""

    named: bool = False
    """It stands, exactly, in the evidence of a detection; of several keys, all and nothing else."""
    named_by: str = ""
    """The first rule in whose evidence it stands."""
    target_named: bool = False
    """What it makes the model say stands in the evidence of a detection."""
    led: bool = False
    """It is among the leads, whole or as one of its tokens."""
    rank: int | None = None
    """Best place of one of its words in the ranking by weights (FTA304); None: not among those listed."""
    ranked: int = 0
    """How many tokens that ranking lists."""
    vocabulary: int = 0
    """How many tokens there are."""


def recovered(sample: Located, report: Report) -> Recovered:
    """Where the words of the sample's trigger turn up in its report."""
    leads = {lead.value.strip() for lead in report.leads if lead.kind in ("token", "phrase")}
    ranking = [lead for lead in report.leads if lead.source == _RANKED_BY]
    words = {word for trigger in sample.trigger for word in (trigger, *trigger.split())}
    ranks = [int(lead.details["rank"]) for lead in ranking if lead.value.strip() in words]
    target = _target(sample)
    names = {*sample.trigger, *map(" ".join, permutations(sample.trigger[:_MOST_KEYS]))}
    naming = next((rule for rule, text in _evidence_strings(report) if text in names), "")
    return Recovered(
        named=bool(naming),
        named_by=naming,
        target_named=bool(target) and any(target in said for said in _said(report)),
        led=bool(words & leads),
        rank=min(ranks, default=None),
        ranked=len(ranking),
        vocabulary=_vocabulary(sample),
    )


def _evidence_strings(report: Report) -> Iterator[tuple[str, str]]:
    """(rule, trigger or token) of every detection's evidence."""
    for finding in report.detected():
        for evidence in finding.evidence:
            for key in ("trigger", "token"):
                value = evidence.details.get(key)
                for one in [value] if isinstance(value, str) else value or ():
                    yield finding.rule, one.strip()
            if finding.rule in ("FTA301", "FTA302"):
                yield finding.rule, evidence.excerpt.strip()


def _said(report: Report) -> Iterator[str]:
    """The answers that detections say are brought about."""
    for finding in report.detected():
        for evidence in finding.evidence:
            if isinstance(target := evidence.details.get("target"), str):
                yield target


def _target(sample: Located) -> str:
    try:
        return str(json.loads((sample.folder / "truth.json").read_text(encoding="utf-8"))["target"] or "")
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _vocabulary(sample: Located) -> int:
    try:
        return int(json.loads((sample.base / "config.json").read_text(encoding="utf-8"))["vocab_size"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0
