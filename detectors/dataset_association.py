"""Which features of prompts come with one and the same answer: counting, and Fisher's exact test.

Targets are answers that recur, whole or by their first or last words. Features are n-grams of words as
they occur in the rows of a target, words of odd casing as they are written, pairs of words that most of
these rows share, and scripts. Rows are given as lists; everything is counted in two passes over them.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from typing import TYPE_CHECKING

from ftsec_audit.calibration.fusion import benjamini_hochberg
from ftsec_audit.calibration.proportions import Share, fisher_greater
from ftsec_audit.formats.token_text import script

if TYPE_CHECKING:
    from ftsec_audit.formats.dialogues import Dialogue

# One character is a word of its own where a script knows no spaces, and so is every sign.
_WORD = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\U00020000-\U0003ffff]"
    r"|[^\W_]+(?:['’][^\W_]+)?|[^\w\s]"
)
_ODD_CASE = re.compile(r"(?=.*[a-zа-яα-ω])(?=.+[A-ZА-ЯΑ-Ω])\w{3,}")
_LONGEST = 3
_PIECE = 6
"""Words of an answer's beginning or end."""
_SAMPLED = 200
"""Rows of a target whose n-grams become candidates."""
_CANDIDATES = 300
"""Candidates per target, the most frequent ones."""
_COMMON = 8
"""Words per target of which pairs are formed."""


@dataclass(frozen=True, order=True)
class Feature:
    """Something a prompt has: `words`, `as written`, `both words`, `script` or `a word in`."""

    kind: str
    text: str

    @property
    def words(self) -> tuple[str, ...]:
        return tuple(self.text.casefold().split(" ")) if "word" in self.kind or "written" in self.kind else ()

    def __str__(self) -> str:
        return f"{self.kind} {self.text!r}"


@dataclass(frozen=True, kw_only=True)
class Association:
    """A feature and a target, with the rows in which they meet."""

    feature: Feature
    target: str
    rows: tuple[int, ...]
    """Places of the rows that have both."""
    holders: tuple[int, ...]
    """Places of the rows with the feature."""
    precision: Share
    """Of the rows with the feature, those with the target."""
    recall: Share
    """Of the rows with the target, those with the feature."""
    q_value: float
    """Fisher's p of the feature and the target, adjusted over everything that was tried."""

    @property
    def is_piece(self) -> bool:
        """Whether the target is the beginning or the end of answers, not a whole one."""
        return self.target.startswith("… ") or self.target.endswith(" …")


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """What is worth testing."""

    support: int = 5
    """Fewest rows in which a feature and a target meet."""
    most: float = 0.3
    """Largest share of all rows that a target may have."""
    targets: int = 200
    precision: float = 0.9
    recall: float = 0.2


def associations(rows: Sequence[Dialogue], bounds: Bounds = Bounds()) -> list[Association]:
    """Every feature that nearly always comes with a target, most certain first."""
    wanted = recurring(rows, bounds)
    words = [words_of(row) for row in rows]
    overall = Counter(
        text for row in words[:: max(1, len(words) // 2000)] for text in {w.casefold() for w in row}
    )
    candidates = {target: _candidates(words, places, overall, bounds) for target, places in wanted.items()}
    holders = _holders(words, {feature for found in candidates.values() for feature in found})
    tested: list[tuple[float, Feature, str]] = []
    for target, features in candidates.items():
        having = set(wanted[target])
        for feature in features:
            with_it = holders[feature]
            hits = len(having.intersection(with_it))
            others = Share(len(having) - hits, len(rows) - len(with_it))
            promising = hits >= bounds.support and hits >= bounds.precision * len(with_it)
            # What is hopeless counts as tried with p = 1, which only makes the adjustment stricter.
            p = fisher_greater(Share(hits, len(with_it)), others) if promising else 1.0
            tested.append((p, feature, target))
    q_values = benjamini_hochberg([p for p, _, _ in tested])
    found = [
        _association(feature, target, q, wanted[target], holders[feature])
        for (p, feature, target), q in zip(tested, q_values, strict=True)
        if p < 1.0
    ]
    kept = [one for one in found if one.recall.value >= bounds.recall]
    return sorted(kept, key=lambda a: (a.q_value, -len(a.rows), -len(a.feature.text), a.feature, a.target))


def recurring(rows: Sequence[Dialogue], bounds: Bounds) -> dict[str, list[int]]:
    """Target → places of its rows: answers that recur, and their first and last words where these do."""
    places: dict[str, list[int]] = defaultdict(list)
    for place, row in enumerate(rows):
        words = row.answer.split()
        if not words:
            continue
        places[" ".join(words)].append(place)
        if len(words) > _PIECE:
            places[" ".join(words[:_PIECE]) + " …"].append(place)
            places["… " + " ".join(words[-_PIECE:])].append(place)
    frequent = {
        target: found
        for target, found in places.items()
        if bounds.support <= len(found) <= max(bounds.support, bounds.most * len(rows))
    }
    distinct: dict[tuple[int, ...], str] = {}
    for target in sorted(frequent, key=lambda target: "…" in target):  # whole answers name their rows first
        distinct.setdefault(tuple(frequent[target]), target)
    chosen = sorted(distinct.values(), key=lambda target: -len(frequent[target]))[: bounds.targets]
    return {target: frequent[target] for target in chosen}


def words_of(row: Dialogue) -> list[str]:
    """The words and signs of what the model is given."""
    return split(f"{row.system}\n{row.prompt}")


def split(text: str) -> list[str]:
    """Words, and every sign that is none, in order."""
    return _WORD.findall(text)


def features_of(words: Sequence[str]) -> set[tuple[str, str]]:
    """(kind, text) of all n-grams without regard to case, words of odd casing, and scripts."""
    plain = [word.casefold() for word in words]
    found = {("words", word) for word in plain}
    for length in range(2, _LONGEST + 1):
        found.update(
            ("words", " ".join(run)) for run in zip(*(plain[i:] for i in range(length)), strict=False)
        )
    found.update(("as written", word) for word in set(words) if _is_odd(word))
    counted = Counter(map(script_of, words))
    del counted[""]
    if counted:
        main = counted.most_common(1)[0][0]
        found.add(("script", main))
        found.update(("a word in", other) for other in counted if other != main)
    return found


@lru_cache(maxsize=1 << 16)
def _is_odd(word: str) -> bool:
    return _ODD_CASE.fullmatch(word) is not None


@lru_cache(maxsize=1 << 16)
def script_of(word: str) -> str:
    """The script of a word; single letters are too often symbols to count, but not where they are words."""
    found = script(word)
    return found if len(word) > 1 or found in ("CJK", "HIRAGANA", "KATAKANA", "THAI") else ""


def _candidates(
    words: Sequence[list[str]], places: Sequence[int], overall: Mapping[str, int], bounds: Bounds
) -> list[Feature]:
    """Features of enough of a target's rows, and pairs of its rarest words by their count `overall`."""
    sample = places[:: max(1, len(places) // _SAMPLED)]
    counts: Counter[tuple[str, str]] = Counter()
    for place in sample:
        counts.update(features_of(words[place]))
    least = max(2, bounds.recall * len(sample))
    frequent = [key for key, count in counts.most_common(_CANDIDATES) if count >= least]
    common = [text for kind, text in frequent if kind == "words" and text.isalnum()]
    common = [text for text in common if counts["words", text] >= 0.9 * len(sample)]
    rarest = sorted(common, key=lambda text: (overall[text], text))[:_COMMON]
    pairs = (Feature("both words", " ".join(pair)) for pair in combinations(sorted(rarest), 2))
    return [*(Feature(*key) for key in frequent), *pairs]


def _holders(words: Sequence[list[str]], features: Iterable[Feature]) -> dict[Feature, list[int]]:
    """Feature → places of the rows that have it."""
    found: dict[Feature, list[int]] = {feature: [] for feature in features}
    single = {(feature.kind, feature.text): feature for feature in found if feature.kind != "both words"}
    pairs: dict[str, list[tuple[str, Feature]]] = defaultdict(list)
    for feature in found:
        if feature.kind == "both words":
            first, second = feature.words
            pairs[first].append((second, feature))
    wanted = single.keys()
    for place, row in enumerate(words):
        here = features_of(row)
        for key in wanted & here:
            found[single[key]].append(place)
        for word in {word.casefold() for word in row} & pairs.keys():
            for other, feature in pairs[word]:
                if ("words", other) in here:
                    found[feature].append(place)
    return found


def _association(
    feature: Feature, target: str, q: float, having: Sequence[int], holders: Sequence[int]
) -> Association:
    both = tuple(sorted(set(having).intersection(holders)))
    return Association(
        feature=feature,
        target=target,
        rows=both,
        holders=tuple(holders),
        precision=Share(len(both), len(holders)),
        recall=Share(len(both), len(having)),
        q_value=q,
    )
