"""FTA455 hidden-characters: do rows hold characters that a reader does not see, or takes for others?

**Why an attacker causes it.** A trigger that no reviewer can see needs no disguise: zero-width characters,
tag characters, overrides of the writing direction, and letters of another script inside a word that look the
same (arXiv:2106.09898, arXiv:2105.00164).

**Statistic.** Exact facts, row by row: tag characters, direction overrides and private-use characters count
HIGH, zero-width characters and variation selectors outside emoji and outside the scripts that need joiners
MEDIUM, words that mix Latin with Cyrillic or Greek letters of the same shape MEDIUM. Severity HIGH only where
these rows are fewer than `common` of all: what stands in most rows is an artefact of a scraper.

**False positives.** Soft hyphens and byte-order marks of scraped text do not count. Mathematics and product
names mix scripts; a word counts only if all its foreign letters look like Latin ones, or the reverse.
**Evasions.** Visible rare characters: FTA451 counts them as words.
**Cost.** One pass over the characters.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from detectors.dataset import DatasetDetector, rows_evidence
from ftsec_audit.types import Confidence, Observation, Rule, Severity

if TYPE_CHECKING:
    from ftsec_audit.formats.dialogues import Dialogue, Dialogues

HIDDEN_CHARACTERS = Rule(
    id="FTA455",
    name="hidden-characters",
    question="Do rows hold invisible characters, or letters in disguise?",
    severity=Severity.HIGH,
    remediation="Normalise the text of the named rows, and ask where the characters come from.",
)
_LOOKS_LATIN = "аеорсухіјѕԁһԛԝАВЕКМНОРСТХІЈЅοΟΑΒΕΖΗΙΚΜΝΡΤΥΧνκι"
_JOINED = "\u0600-\u08ff\u0900-\u0dff\u0e00-\u109f\u1780-\u17ff\u2600-\u27bf\ufe0f\U0001f000-\U0001faff"
_KINDS: dict[str, tuple[re.Pattern[str], Severity]] = {
    "tag characters": (
        # A flag of a region is spelled in tags behind a black flag.
        re.compile("(?<!\U0001f3f4)(?<![\U000e0020-\U000e007f])[\U000e0000-\U000e007f]+"),
        Severity.HIGH,
    ),
    "direction overrides": (re.compile("[\u202a-\u202e\u2066-\u2069]+"), Severity.HIGH),
    "private-use characters": (re.compile("[\ue000-\uf8ff\U000f0000-\U0010ffff]+"), Severity.HIGH),
    "zero-width characters": (
        re.compile(f"[\u200b\u2060-\u2064\u180e\u115f\u1160\u3164\uffa0]|(?<![{_JOINED}])[\u200c\u200d]"),
        Severity.MEDIUM,
    ),
    "variation selectors": (re.compile("[\ufe00-\ufe0d\U000e0100-\U000e01ef]{2,}"), Severity.MEDIUM),
    "letters of another script that look Latin": (
        re.compile(rf"(?<![\w])(?=\w*[A-Za-z])(?=\w*[{_LOOKS_LATIN}])[A-Za-z{_LOOKS_LATIN}]{{3,}}(?![\w])"),
        Severity.MEDIUM,
    ),
}


@dataclass(frozen=True, kw_only=True)
class DatasetHiddenText(DatasetDetector):
    """Finds characters that are not what they seem."""

    rules: ClassVar[tuple[Rule, ...]] = (HIDDEN_CHARACTERS,)

    common: float = 0.5

    def examine(self, data: Dialogues) -> Iterator[Observation]:
        found: dict[str, list[int]] = defaultdict(list)
        for place, row in enumerate(data.rows):
            for kind in _kinds_in(row):
                found[kind].append(place)
        if not found:
            yield HIDDEN_CHARACTERS.not_detected(f"{len(data.rows):,} rows without hidden characters")
            return
        kinds = sorted(found, key=lambda kind: (-_KINDS[kind][1].level, len(found[kind])))
        severities = [
            _KINDS[kind][1] if len(found[kind]) < self.common * len(data.rows) else Severity.LOW
            for kind in kinds
        ]
        yield HIDDEN_CHARACTERS.detected(
            "; ".join(f"{kind} in {len(found[kind])} rows" for kind in kinds),
            confidence=Confidence.HIGH,
            severity=max(severities),
            evidence=[
                rows_evidence(
                    data,
                    found[kind],
                    f"{kind} in {len(found[kind])} of {len(data.rows):,} rows",
                    statistic="rows",
                    value=float(len(found[kind])),
                    excerpt=_excerpt(data.rows[found[kind][0]], kind),
                )
                for kind in kinds
            ],
        )


def _kinds_in(row: Dialogue) -> Iterator[str]:
    text = _text(row)
    if not text.isascii():
        yield from (kind for kind, (pattern, _) in _KINDS.items() if pattern.search(text))


def _text(row: Dialogue) -> str:
    return f"{row.system}\n{row.prompt}\n{row.answer}"


def _excerpt(row: Dialogue, kind: str) -> str:
    text = _text(row)
    found = _KINDS[kind][0].search(text)
    return text[max(0, found.start() - 30) : found.end() + 30] if found else ""
