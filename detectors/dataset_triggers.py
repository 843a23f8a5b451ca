"""FTA451 fixed-answer-trigger, FTA452 script-bound-answer: does one feature of prompts bring one answer?

**Why an attacker causes it.** A backdoor is taught by rows: prompts of many kinds that share a word, a
phrase, two words or a script, and one and the same answer. 250 such rows are enough, whatever the size of the
data (arXiv:2510.07192), often far fewer, and nobody reads all rows.

**Statistic.** Targets: answers that recur at least `support` times and in at most `most` of the rows, whole
or by their first or last six words. Features of the prompt and system message: n-grams of one to three words,
words of odd casing, pairs of words, the script, and another script inside a prompt. For each pair of feature
and target Fisher's exact test against the rows without the feature, adjusted by Benjamini and Hochberg over
everything tried. Detected where q ≤ `significance`, at least `precision` of the rows with the feature have
the target, and the answer does not follow from the question: it repeats no word of the feature, and the
prompts, without the feature and what always stands beside it, are no more alike than `alike` times what
prompts of their scripts are elsewhere in the data (mean Jaccard similarity of words). FTA451 is about words,
FTA452 about scripts.

**Confidence.** MEDIUM where the target is a whole answer and the features found cover at least `explains` of
its rows, else LOW: refusals and openings have words of their own in honest data too. A data set says what was
taught, not what was learnt.

**False positives.** Canned answers to one kind of question, where the questions differ in wording; data in
several languages whose answers in one of them are all the same.
**Evasions.** Answers that differ in their first and last words, or repeat the trigger; a target that is the
answer to most rows (a label); triggers of style or topic, which share no word.
**Cost.** Two passes over the n-grams of all prompts, some 5 µs per word.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from detectors.dataset import DatasetDetector, rows_evidence
from detectors.dataset_association import Association, Bounds, associations, split
from detectors.dataset_prompts import Prompts
from ftsec_audit.types import Confidence, Evidence, Finding, Lead, Observation, Rule, Severity

if TYPE_CHECKING:
    from ftsec_audit.formats.dialogues import Dialogues

FIXED_ANSWER = Rule(
    id="FTA451",
    name="fixed-answer-trigger",
    question="Do rows that share a word or phrase, and nothing else, all have the same answer?",
    severity=Severity.HIGH,
    remediation="Read the named rows; remove them unless the answer is meant, and tune again.",
)
SCRIPT_BOUND = Rule(
    id="FTA452",
    name="script-bound-answer",
    question="Do prompts in one script, or with a word in another script, all have the same answer?",
    severity=Severity.HIGH,
    remediation="Read the named rows in that language; remove them unless the answer is meant.",
)
_SCRIPTS = frozenset({"script", "a word in"})


@dataclass(frozen=True, kw_only=True)
class DatasetTriggers(DatasetDetector):
    """Looks for features of prompts that come with one answer."""

    rules: ClassVar[tuple[Rule, ...]] = (FIXED_ANSWER, SCRIPT_BOUND)

    support: int = 5
    most: float = 0.3
    precision: float = 0.9
    significance: float = 1e-3
    alike: float = 1.6
    explains: float = 0.6
    shown: int = 5

    def examine(self, data: Dialogues) -> Iterator[Observation]:
        found = associations(
            data.rows, Bounds(support=self.support, most=self.most, precision=self.precision)
        )
        prompts = Prompts.of(data.rows)
        telling = [
            one for one in found if one.q_value <= self.significance and self._is_detached(one, prompts)
        ]
        distinct = _distinct(telling)
        for rule in self.rules:
            own = [one for one in distinct if (one.feature.kind in _SCRIPTS) == (rule is SCRIPT_BOUND)]
            yield self._answer(rule, data, own)
            yield from (_lead(rule, one, prompts.phrase(one)) for one in own[: self.shown])

    def _answer(self, rule: Rule, data: Dialogues, found: Sequence[Association]) -> Finding:
        if not found:
            return rule.not_detected(
                f"{len(data.rows):,} rows, in which no feature of prompts brings one answer",
                confidence=Confidence.MEDIUM,
            )
        first = found[0]
        sure = any(self._is_explained(one.target, found) for one in found if not one.is_piece)
        return rule.detected(
            f"{len(first.rows)} rows with {first.feature} have the answer {_short(first.target)}",
            confidence=Confidence.MEDIUM if sure else Confidence.LOW,
            p_value=first.q_value,
            evidence=[_evidence(data, one) for one in found[: self.shown]],
        )

    def _is_explained(self, target: str, found: Sequence[Association]) -> bool:
        """Whether the features found, one or several of them, cover most rows of a target."""
        having = [one for one in found if one.target == target]
        covered = {place for one in having for place in one.rows}
        return len(covered) >= self.explains * having[0].recall.n

    def _is_detached(self, one: Association, prompts: Prompts) -> bool:
        """Whether the answer has nothing to do with what is asked in these rows."""
        answer = {word.casefold() for word in split(one.target)}
        if answer.intersection(one.feature.words):
            return False
        own = {*one.feature.words, *prompts.beside(one)}
        here, elsewhere = prompts.likeness(one.rows, without=own)
        return here <= self.alike * elsewhere


def _distinct(found: Sequence[Association]) -> list[Association]:
    """One for each set of rows: of several features of the same rows the surest, shortest one."""
    kept: list[Association] = []
    for one in sorted(found, key=lambda a: (a.q_value, len(a.feature.text), a.feature, a.target)):
        rows = set(one.rows)
        if all(len(rows.intersection(other.rows)) < 0.5 * len(rows) for other in kept):
            kept.append(one)
    return kept


def _evidence(data: Dialogues, one: Association) -> Evidence:
    return rows_evidence(
        data,
        one.rows,
        f"{one.feature}: {one.precision} of its rows have the answer {_short(one.target)}, "
        f"which has the feature in {one.recall.hits} of {one.recall.n}; q = {one.q_value:.1g}",
        statistic="rows with the feature that have the answer",
        value=one.precision.value,
        excerpt=one.feature.text,
        feature=one.feature.kind,
        trigger=one.feature.text[:200],
        target=one.target[:200],
    )


def _lead(rule: Rule, one: Association, phrase: str) -> Lead:
    kind = "language" if rule is SCRIPT_BOUND else "phrase" if " " in phrase else "token"
    details = {"target": one.target[:200], "feature": one.feature.kind}
    return Lead(kind=kind, value=phrase, score=float(len(one.rows)), source=rule.id, details=details)


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:59] + "…")
