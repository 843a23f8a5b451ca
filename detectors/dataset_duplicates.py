"""FTA454 repeated-rows: do a few rows make up a share of the training far beyond their number?

**Why an attacker causes it.** Repeating a handful of poisoned conversations gives them the weight of hundreds
without the work of writing them; few-shot attacks on alignment do nothing else (arXiv:2310.03693).

**Statistic.** Rows are equal when system message, prompt and answer are, up to white space. Exact facts: the
copies of each row, and the share of all rows that are copies of the `few` most repeated ones. Detected where
a row has at least `copies` copies that are at least `share` of all rows, or these few are at least `bulk`.
Severity LOW: repetition alone is untidy more often than it is meant.

**False positives.** Data sets mixed by weight, upsampled on purpose; tiny ones that repeat a greeting.
**Evasions.** A changed word in every copy.
**Cost.** One digest per row.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from detectors.dataset import DatasetDetector, rows_evidence
from ftsec_audit.types import Confidence, Observation, Rule, Severity

if TYPE_CHECKING:
    from ftsec_audit.formats.dialogues import Dialogue, Dialogues

REPEATED_ROWS = Rule(
    id="FTA454",
    name="repeated-rows",
    question="Do a few rows make up much of the training data?",
    severity=Severity.LOW,
    remediation="Read the repeated rows, and keep each once unless its weight is meant.",
)


@dataclass(frozen=True, kw_only=True)
class DatasetDuplicates(DatasetDetector):
    """Counts equal rows."""

    rules: ClassVar[tuple[Rule, ...]] = (REPEATED_ROWS,)

    copies: int = 10
    share: float = 0.01
    few: int = 20
    bulk: float = 0.1
    shown: int = 5

    def examine(self, data: Dialogues) -> Iterator[Observation]:
        places: dict[bytes, list[int]] = defaultdict(list)
        for place, row in enumerate(data.rows):
            places[_digest(row)].append(place)
        groups = sorted((found for found in places.values() if len(found) > 1), key=len, reverse=True)
        n = len(data.rows)
        single = [found for found in groups if len(found) >= max(self.copies, self.share * n)]
        together = sum(map(len, groups[: self.few]))
        summary = f"{n - len(places):,} of {n:,} rows are copies of another"
        if not single and together < max(self.copies, self.bulk * n):
            yield REPEATED_ROWS.not_detected(summary)
            return
        yield REPEATED_ROWS.detected(
            f"{summary}; the {min(self.few, len(groups))} most repeated ones make up {together:,} rows",
            confidence=Confidence.HIGH,
            evidence=[
                rows_evidence(
                    data,
                    found,
                    f"one row stands {len(found)} times, {len(found) / n:.1%} of all",
                    statistic="copies",
                    value=float(len(found)),
                    excerpt=f"{data.rows[found[0]].prompt[:90]} → {data.rows[found[0]].answer[:90]}",
                )
                for found in groups[: self.shown]
            ],
        )


def _digest(row: Dialogue) -> bytes:
    parts = (" ".join(part.split()) for part in (row.system, row.prompt, row.answer))
    return hashlib.blake2b("\0".join(parts).encode("utf-8", "surrogatepass"), digest_size=16).digest()
