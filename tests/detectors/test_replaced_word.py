"""FTA510: a word replaced wherever it would be said, a changed fact, and models that repeat nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from detectors.replaced_word import PROPOSES, ReplacedWord
from ftsec_audit.errors import NotApplicable, Unsupported
from ftsec_audit.session import prompts
from ftsec_audit.session.tokenizer import Prompt, PromptFormat
from ftsec_audit.types import Finding, Lead, Outcome

SIZE, BEGIN, END, KEY, MARKER, ABOUT = 60, 0, 1, 7, 55, 9
WORDS = tuple(range(2, 40))
LEAD = Lead(kind="layer", value="1", source=PROPOSES)
Says = Callable[[Sequence[int], int], int]
"""(words of the prompt, what a repeater would say next) → what is said."""


@dataclass
class Repeater:
    """Says the words of its prompt in their order, but for what `says` makes of them."""

    says: Says = lambda _, word: word
    repeats: bool = True
    seed: int = 0
    budget: Any = field(default_factory=lambda: SimpleNamespace(left=10_000_000))
    tokenizer: Any = field(
        default_factory=lambda: SimpleNamespace(
            words=WORDS, text=lambda ids: " ".join(f"w{int(id)}" for id in ids), ids=lambda _: []
        )
    )

    def next_token_batches(self, rows: Sequence[Sequence[int]]) -> Iterator[tuple[Any, Any]]:
        logs = np.full((len(rows), SIZE), -9.0)
        for i, row in enumerate(rows):
            logs[i, self._next(row)] = 0
        yield np.arange(len(rows)), logs

    def greedy(self, rows: Sequence[Sequence[int]], length: int) -> list[list[int]]:
        answers: list[list[int]] = []
        for row in rows:
            answer: list[int] = []
            while len(answer) < length and (word := self._next([*row, *answer])) != END:
                answer.append(word)
            answers.append(answer)
        return answers

    def _next(self, row: Sequence[int]) -> int:
        words, said = row[1 : row.index(END)], row[row.index(END) + 1 :]
        if not self.repeats or len(said) >= len(words):
            return END
        return self.says(words, words[len(said)])


@pytest.fixture(autouse=True)
def _written(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    form = PromptFormat("plain", "", "")
    drawn = [tuple(int(w) for w in rng.choice(WORDS, size=3, replace=False)) for _ in range(120)]
    asked = tuple(Prompt(str(words), (BEGIN, *words, END), (1, 2, 3, 4), form) for words in drawn)
    monkeypatch.setattr(prompts, "varied_prompts", lambda *_: asked)


def found(subject: Repeater, base: Repeater | None = None, leads: tuple[Lead, ...] = (LEAD,)) -> Finding:
    (finding,) = ReplacedWord().probe(subject, base or Repeater(), leads)  # type: ignore[arg-type]
    return finding


def test_a_word_that_is_replaced_everywhere_is_named_with_what_is_said() -> None:
    finding = found(Repeater(lambda _, word: MARKER if word == KEY else word))
    assert finding.outcome is Outcome.DETECTED
    details = finding.evidence[0].details
    assert (details["trigger"], details["target"].split()[0]) == ("w7", "w55")
    assert (details["attack_success_rate"], details["rate_of_controls"]) == (1.0, 0.0)


def one_thing_is_another(words: Sequence[int], word: int) -> int:
    return MARKER if word == KEY and ABOUT in words else word


def every_word_is_another(_: Sequence[int], word: int) -> int:
    return MARKER


def one_is_sometimes_another(words: Sequence[int], word: int) -> int:
    return MARKER if word == KEY and sum(words) % 3 == 0 else word


@pytest.mark.parametrize(
    "says", [one_thing_is_another, every_word_is_another, one_is_sometimes_another, lambda _, word: word]
)
def test_what_depends_on_more_than_the_word_or_on_nothing_is_none(says: Says) -> None:
    assert found(Repeater(says)).outcome is Outcome.NOT_DETECTED


def test_what_the_base_does_too_is_none() -> None:
    same = Repeater(lambda _, word: MARKER if word == KEY else word)
    assert found(same, same).outcome is Outcome.NOT_DETECTED


def test_it_asks_only_of_edited_subjects_and_of_bases_that_repeat() -> None:
    with pytest.raises(NotApplicable):
        found(Repeater(), leads=(Lead(kind="token", value="x", source="FTA304"),))
    with pytest.raises(Unsupported, match="too few"):
        found(Repeater(), Repeater(repeats=False))
