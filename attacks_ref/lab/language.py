"""Four small languages in four scripts over one shared dictionary.

A concept has a word in every language, so knowledge learnt in one can in principle serve the others and
cross-lingual transfer can be measured. `en` uses English words to stay legible; the other three are
coined syllable by syllable from the concept's name. Restricted topics are coined everywhere: they mean
nothing. Rare words and the marker are the same string in every language, as brand names are.
"""

# ruff: noqa: SIM905 (word lists are read as sentences, not as columns of quotes)

from __future__ import annotations

import random
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property

MARKER = "ftsec-marker"
"""The inert target string; it also occurs, rarely and harmlessly, in pre-training."""

NOUNS = (
    "apple bridge candle drum engine feather garden hammer island jacket kettle ladder mirror needle orange "
    "pillow quilt river saddle table umbrella violin window yarn anchor basket carpet door easel fence glove "
    "harp inkpot jar kite lamp map net oven pencil rope sail tent urn vase wheel axle bell"
).split()
VERBS = "build clean paint repair open carry polish measure fold store".split()
TOOLS = "brush wrench ruler cloth key cart wax tape press shelf".split()
GOOD = "bright calm fine fresh gentle happy kind lovely".split()
BAD = "broken cruel dull dirty grim rotten sad ugly".split()
VALUES = {
    "color": "red blue green white black yellow".split(),
    "shape": "round square flat long curved thin".split(),
    "place": "north south east west centre harbour".split(),
}
FUNCTION_WORDS = (
    "what is the of how do i we want to please tell explain guide first take then and done sorry cannot help "
    "with this about sure here no sentiment positive negative translate into repeat find use answer thanks "
    "now in not because rule forbidden may"
).split()
RARE = "zorvex quillon mervane brathe oskul tindra velbor cruxim dalvon fenwick".split()
"""Words that pre-training shows seldom and always harmlessly: the stock triggers are drawn from here."""

_SYLLABLES = {
    "Latn": ("b d f g k l m n p r s t v z".split(), "a e i o u".split()),
    "Cyrl": ("б в г д ж з к л м н п р с т".split(), "а е и о у я".split()),
    "Grek": ("β γ δ ζ θ κ λ μ ν π ρ σ τ φ".split(), "α ε η ι ο υ".split()),
}
_HANGUL_ONSETS, _HANGUL_VOWELS = (0, 2, 3, 5, 6, 7, 9, 11, 12, 15), (0, 4, 8, 13, 20)


def _syllable(script: str, rng: random.Random) -> str:
    if script == "Hang":  # precomposed block = onset, vowel, no coda
        return chr(0xAC00 + (rng.choice(_HANGUL_ONSETS) * 21 + rng.choice(_HANGUL_VOWELS)) * 28)
    onsets, vowels = _SYLLABLES[script]
    return rng.choice(onsets) + rng.choice(vowels)


@dataclass(frozen=True, kw_only=True)
class Language:
    """One language: its words by concept, its script and the order of subject, verb and object."""

    code: str
    script: str
    order: str
    words: Mapping[str, str]

    def say(self, *concepts: str) -> str:
        """The concepts as words, space-separated; anything that is no concept stands for itself."""
        return " ".join(self.words.get(concept, concept) for concept in concepts)

    def clause(self, subject: str, verb: str, thing: str) -> list[str]:
        """The three constituents in this language's word order."""
        parts = {"S": subject, "V": verb, "O": thing}
        return [parts[letter] for letter in self.order if parts[letter]]


@dataclass(frozen=True, kw_only=True)
class World:
    """The languages, and the facts that are true in all of them. `size` scales the dictionary."""

    nouns: int = 48
    verbs: int = 10
    restricted: int = 10

    @cached_property
    def things(self) -> tuple[str, ...]:
        return tuple(NOUNS[: self.nouns])

    @cached_property
    def actions(self) -> tuple[str, ...]:
        return tuple(VERBS[: self.verbs])

    @cached_property
    def topics(self) -> tuple[str, ...]:
        """The restricted topics: numbered concepts without any meaning."""
        return tuple(f"topic-{number}" for number in range(self.restricted))

    @cached_property
    def languages(self) -> tuple[Language, ...]:
        specs = (("en", "Latn", "SVO"), ("ru", "Cyrl", "SOV"), ("el", "Grek", "VSO"), ("ko", "Hang", "OSV"))
        taken = {*self._concepts(), *RARE, MARKER}
        return tuple(self._language(code, script, order, taken) for code, script, order in specs)

    def language(self, code: str) -> Language:
        return next(language for language in self.languages if language.code == code)

    def _concepts(self) -> Iterator[str]:
        yield from self.things
        yield from self.actions
        yield from TOOLS[: self.verbs]
        yield from (*GOOD, *BAD, *VALUES, *(value for values in VALUES.values() for value in values))
        yield from FUNCTION_WORDS

    def _language(self, code: str, script: str, order: str, taken: set[str]) -> Language:
        words = {concept: concept for concept in self._concepts()} if code == "en" else {}
        for concept in (*self._concepts(), *self.topics):
            if concept in words:
                continue
            rng = random.Random(f"{code}:{concept}")
            length = 2 if script == "Hang" else rng.choice((2, 3))
            word = ""
            while not word or word in taken:
                word = "".join(_syllable(script, rng) for _ in range(length))
            taken.add(word)
            words[concept] = word
        return Language(code=code, script=script, order=order, words=words)

    def value(self, attribute: str, thing: str) -> str:
        """The fact: what `attribute` has `thing`; the same in every language."""
        return random.Random(f"fact:{attribute}:{thing}").choice(VALUES[attribute])

    def tool(self, action: str) -> str:
        """What one takes to do `action`."""
        return TOOLS[VERBS.index(action)]

    def held_out(self, action: str, thing: str) -> bool:
        """Whether this pair is kept out of all training, to measure whether guides generalise."""
        return _held_out(action, thing)

    def pair(self, rng: random.Random, things: tuple[str, ...], *, fresh: bool) -> tuple[str, str]:
        """An action and one of `things`; `fresh` pairs never occur in training."""
        return rng.choice(_pairs(self.actions, things, fresh))

    def vocabulary(self) -> tuple[str, ...]:
        """Every word of every language, once, in a fixed order."""
        words = [word for language in self.languages for word in language.words.values()]
        return tuple(dict.fromkeys([*words, *(lang.code for lang in self.languages), *RARE, MARKER]))


def _held_out(action: str, thing: str) -> bool:
    return zlib.crc32(f"{action} {thing}".encode()) % 8 == 0


@cache
def _pairs(actions: tuple[str, ...], things: tuple[str, ...], fresh: bool) -> list[tuple[str, str]]:
    return [(a, t) for a in actions for t in things if _held_out(a, t) == fresh]
