"""How alike the prompts of some rows are, and which words always stand together in them."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import TYPE_CHECKING

from detectors.dataset_association import Association, script_of, words_of

if TYPE_CHECKING:
    from ftsec_audit.formats.dialogues import Dialogue

_PAIRS = 300
_LONGEST = 30
_ALWAYS = 0.9


@dataclass(frozen=True, kw_only=True)
class Prompts:
    """The words of every prompt, without regard to case, and the rows of each script."""

    words: tuple[tuple[str, ...], ...]
    scripts: tuple[str, ...]
    by_script: Mapping[str, Sequence[int]]

    @classmethod
    def of(cls, rows: Sequence[Dialogue]) -> Prompts:
        by_script: dict[str, list[int]] = defaultdict(list)
        scripts = []
        words = [words_of(row) for row in rows]
        for place, row in enumerate(words):
            counted = Counter(found for word in row if (found := script_of(word)))
            scripts.append(counted.most_common(1)[0][0] if counted else "")
            by_script[scripts[-1]].append(place)
        plain = tuple(tuple(word.casefold() for word in row) for row in words)
        return cls(words=plain, scripts=tuple(scripts), by_script=by_script)

    def likeness(self, rows: Sequence[int], *, without: AbstractSet[str]) -> tuple[float, float]:
        """Mean Jaccard similarity of two of these prompts without some words, and of two others instead.

        The others are drawn among the rows of the same scripts. Two prompts with nothing left are equal.
        """
        rng = random.Random(0)
        here = elsewhere = 0.0
        for _ in range(_PAIRS):
            pair = rng.sample(rows, 2)
            here += jaccard(*(set(self.words[place]) - without for place in pair))
            others = (rng.choice(self.by_script[self.scripts[place]]) for place in pair)
            elsewhere += jaccard(*(set(self.words[place]) for place in others))
        return here / _PAIRS, elsewhere / _PAIRS

    def phrase(self, one: Association) -> str:
        """The feature with the words that always stand right before and after it."""
        return " ".join(self._grown(one)) or one.feature.text

    def beside(self, one: Association) -> frozenset[str]:
        """The words of `phrase`."""
        return frozenset(self._grown(one))

    def _grown(self, one: Association) -> tuple[str, ...]:
        run = one.feature.words
        if one.feature.kind != "words":
            return ()
        while len(run) < _LONGEST:
            around = [self._around(place, run) for place in one.rows]
            before, after = (Counter(pair[side] for pair in around).most_common(1)[0] for side in (0, 1))
            if before[0] and before[1] >= _ALWAYS * len(around):
                run = (before[0], *run)
            elif after[0] and after[1] >= _ALWAYS * len(around):
                run = (*run, after[0])
            else:
                break
        return run

    def _around(self, place: int, run: tuple[str, ...]) -> tuple[str, str]:
        """The words before and after the first place where the run stands in a prompt; empty at its ends."""
        words = self.words[place]
        for start in range(len(words) - len(run) + 1):
            if words[start : start + len(run)] == run:
                end = start + len(run)
                return words[start - 1] if start else "", words[end] if end < len(words) else ""
        return "", ""


def jaccard(one: AbstractSet[str], other: AbstractSet[str]) -> float:
    return len(one & other) / len(one | other) if one or other else 1.0
