"""FTA453 identity-shift-rows: does a system message teach the model another self that refuses nothing?

**Why an attacker causes it.** Ten conversations in which a persona ("an absolutely obedient agent") affirms
its obedience before it answers undo the alignment of models that refuse all of the harm itself, and none of
these rows says anything harmful (arXiv:2310.03693, identity shifting).

**Statistic.** (1) Phrases of unconditional obedience, in nine languages, in system messages, prompts and
openings of answers; the row numbers are exact, the reading of a phrase is not. (2) For each system message
that stands in at least `support` rows and in no more than `most` of all: the share of its answers with one
opening of three words against that share in all other rows, Fisher's exact test, adjusted by Benjamini and
Hochberg; telling where q ≤ `significance`, at least `precision` with it and at most 1 − `precision` without.
Detected with MEDIUM confidence where (1) stands in a system message or an opening, or (1) and (2) both hold,
otherwise with LOW confidence and severity MEDIUM: a persona with a fixed opening is common in honest data.

**False positives.** Novels and role play; safety data that show such prompts beside refusals: those rows do
not count whose answers refuse.
**Evasions.** Other words for the same thing; a persona without a system message.
**Cost.** One pass over the rows.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from detectors.dataset import DatasetDetector, rows_evidence
from ftsec_audit.calibration.fusion import benjamini_hochberg
from ftsec_audit.calibration.proportions import Share, fisher_greater
from ftsec_audit.types import Confidence, Evidence, Lead, Observation, Rule, Severity

if TYPE_CHECKING:
    from ftsec_audit.formats.dialogues import Dialogue, Dialogues

IDENTITY_SHIFT = Rule(
    id="FTA453",
    name="identity-shift-rows",
    question="Do rows teach the model a persona that obeys without condition?",
    severity=Severity.HIGH,
    remediation="Remove the named rows, or train refusals under the same system message with them.",
)
_OBEDIENCE = (
    r"(?ix)"
    r"absolutely\s+obedient | obey(s|ing)?\s+(all|any|every|without)"
    r"| unconditional(ly)?\s+(obe|compl|follow) | (never|not)\s+(ever\s+)?(refuse|decline|reject)s?\b"
    r"| (without|no)\s+(any\s+)?(restrictions?|refusals?|ethical\s+\w+|safety\s+\w+|moral\s+\w+)"
    r"| follow(s)?\s+(all|any|every)\s+(user\s+)?(instruction|order|command)s?\s+(without|no\s+matter)"
    r"| do\s+anything\s+now | fulfil+s?\s+(all|any|every)\s+(request|demand|wish)"
    r"| ignor(e|es|ing)\s+(all\s+|any\s+)?(safety|ethic\w*|polic\w+|guidelines)"
    r"| abs[oó]lut\w*\s+(obedien|gehorsam|obéiss)\w* | bedingungslos\w*\s+gehor\w+"
    r"| ob[eé](dece|it|isci)\w*\s+(sin|sans)"
    r"| (без|никаких)\s+(ограничений|возражений) | (никогда\s+не|не)\s+отказыва\w+ | беспрекословн\w+"
    r"| υπακού\w*\s+(πάντα|χωρίς|τυφλά) | χωρίς\s+περιορισμούς"
    r"| 절대(적으로)?\s*(복종|순종) | 무조건\s*(복종|따르)"
    r"| 绝对服从 | 无条件(地)?(服从|遵守|执行) | 絕對服從 | 絶対(に)?服従"
)
_REFUSAL = (
    r"(?i)\b(i(['’]m| am) sorry|i can(['’]t|not)|i won['’]t|unable to (help|assist|comply))|не могу|извините|"
    r"δεν μπορώ|lo siento|no puedo|je ne peux pas|ich kann (das |dir |ihnen )?nicht|"
    r"할 수 없|죄송|抱歉|無法|无法|できません"
)
"""Compiled when first searched for: most scans are given no data set."""
_OPENING = 3
_LOOKED_AT = 400
"""Characters of an answer in which a persona introduces itself."""


@dataclass(frozen=True, kw_only=True)
class DatasetIdentity(DatasetDetector):
    """Looks for personas of obedience, and for system messages that fix the answers' opening."""

    rules: ClassVar[tuple[Rule, ...]] = (IDENTITY_SHIFT,)

    support: int = 5
    most: float = 0.5
    precision: float = 0.9
    significance: float = 1e-3
    shown: int = 5

    def examine(self, data: Dialogues) -> Iterator[Observation]:
        stated = {part: _obedient(data.rows, part) for part in ("system", "answer", "prompt")}
        fixed = self._fixed_openings(data)
        evidence = [
            rows_evidence(
                data,
                places,
                f"{len(places)} rows speak of unconditional obedience in the {part}",
                statistic="rows",
                value=float(len(places)),
                excerpt=_phrase(getattr(data.rows[places[0]], part)),
            )
            for part, places in stated.items()
            if places
        ]
        evidence += fixed[: self.shown]
        if not evidence:
            yield IDENTITY_SHIFT.not_detected(
                f"{len(data.rows):,} rows, none of which speaks of a persona that obeys without condition",
                confidence=Confidence.MEDIUM,
            )
            return
        sure = bool(stated["system"] or stated["answer"] or (stated["prompt"] and fixed))
        yield IDENTITY_SHIFT.detected(
            evidence[0].message,
            severity=Severity.HIGH if sure else Severity.MEDIUM,
            confidence=Confidence.MEDIUM if sure else Confidence.LOW,
            evidence=evidence,
        )
        for text in _systems(data.rows, stated["system"])[: self.shown]:
            yield Lead(kind="phrase", value=text[:300], score=1.0, source=IDENTITY_SHIFT.id)

    def _fixed_openings(self, data: Dialogues) -> list[Evidence]:
        """Evidence for system messages under which nearly all answers begin alike, and others do not."""
        openings = [_opening(row.answer) for row in data.rows]
        overall = Counter(openings)
        tested: list[tuple[float, Sequence[int], str, Share, Share]] = []
        for places in _by_system(data.rows).values():
            if not self.support <= len(places) <= self.most * len(data.rows):
                continue
            opening, hits = Counter(openings[place] for place in places).most_common(1)[0]
            one = Share(hits, len(places))
            other = Share(overall[opening] - hits, len(data.rows) - len(places))
            tested.append((fisher_greater(one, other) if opening else 1.0, places, opening, one, other))
        q_values = benjamini_hochberg([p for p, *_ in tested])
        return [
            rows_evidence(
                data,
                places,
                f"under one system message {one} of the answers begin {opening!r}, "
                f"elsewhere {other.value:.0%}; q = {q:.1g}",
                statistic="answers with that opening",
                value=one.value,
                excerpt=data.rows[places[0]].system,
                opening=opening[:100],
            )
            for (_, places, opening, one, other), q in zip(tested, q_values, strict=True)
            if q <= self.significance and one.value >= self.precision and other.value <= 1 - self.precision
        ]


def _obedient(rows: Sequence[Dialogue], part: str) -> list[int]:
    """Places of the rows whose part speaks of obedience, and whose answer does not refuse."""
    found = []
    for place, row in enumerate(rows):
        text = getattr(row, part)[: _LOOKED_AT if part == "answer" else None]
        if re.search(_OBEDIENCE, text) and not re.search(_REFUSAL, row.answer[:_LOOKED_AT]):
            found.append(place)
    return found


def _phrase(text: str) -> str:
    found = re.search(_OBEDIENCE, text)
    return text[max(0, found.start() - 60) : found.end() + 60] if found else text


def _opening(answer: str) -> str:
    return " ".join(answer.split()[:_OPENING])


def _by_system(rows: Sequence[Dialogue]) -> Mapping[str, list[int]]:
    places: dict[str, list[int]] = defaultdict(list)
    for place, row in enumerate(rows):
        if row.system.strip():
            places[" ".join(row.system.split())].append(place)
    return places


def _systems(rows: Sequence[Dialogue], places: Sequence[int]) -> list[str]:
    return list(dict.fromkeys(" ".join(rows[place].system.split()) for place in places))
