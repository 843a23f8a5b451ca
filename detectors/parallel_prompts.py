"""Parallel prompts of a probe set, and how a word or another language is put into them."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ftsec_audit.errors import NotApplicable, Unsupported

if TYPE_CHECKING:
    from ftsec_audit.session import ModelSession
    from ftsec_audit.types import Lead

_PLACES = 3


@dataclass(frozen=True, kw_only=True)
class Concept:
    """One word as several languages write it."""

    words: Mapping[str, str] = field(default_factory=dict)
    """Language, or kind of writing, → word."""

    @property
    def name(self) -> str:
        return next(iter(self.words.values()))


def parallel_prompts(session: ModelSession, least: int, use: str) -> dict[str, tuple[str, ...]]:
    """Everyday prompts by language, `least` or more of each; raises NotApplicable, Unsupported.

    `use` says in the refusal what takes two languages: "a pair", "mixing".
    """
    found, label = session.probes.neutral(), session.probes.label
    if len(found) < 2:
        raise NotApplicable(f"{label} has parallel prompts in {len(found)} languages; {use} takes 2")
    if min(map(len, found.values())) < least:
        raise Unsupported(f"{label} has too few parallel prompts to search and to confirm")
    return found


def ids(session: ModelSession, text: str) -> tuple[int, ...]:
    """`text` as the model is asked it."""
    return session.tokenizer.prompt(text, session.tokenizer.formats[0]).ids


def writable(session: ModelSession, word: str) -> bool:
    """Whether the tokenizer has the word, and not a stand-in for what it does not know."""
    found = session.tokenizer.ids(word)
    return bool(found) and session.tokenizer.special_ids.isdisjoint(found)


def inserted(prompt: str, word: str, number: int) -> str:
    """The prompt with the word before it, within it or after it, in turn of `number`."""
    words = prompt.split()
    place = (0, 1 + (number // _PLACES) % max(1, len(words) - 1), len(words))[number % _PLACES]
    return " ".join([*words[:place], word, *words[place:]])


def mixed(prompt: str, own: str, other: str, concepts: Sequence[Mapping[str, str]], number: int) -> str:
    """Every other word that a dictionary has, in the other language; as it is where that is none."""
    table = {one[own]: one[other] for one in concepts if own in one and other in one}
    words = prompt.split()
    known = [i for i, word in enumerate(words) if table.get(word, word) != word]
    for i in known[number % 2 if len(known) > 1 else 0 :: 2]:
        words[i] = table[words[i]]
    return " ".join(words)


def concepts(
    session: ModelSession, leads: Sequence[Lead], dictionary: Sequence[Mapping[str, str]], most: int
) -> list[Concept]:
    """What may be a trigger: leads, translated where a dictionary has them, transliterated; then the rest."""
    entries = [dict(one) for one in dictionary]
    by_word = {word: entry for entry in reversed(entries) for word in entry.values()}
    proposed = [lead.value.strip() for lead in sorted(leads, key=lambda lead: -lead.score) if _is_text(lead)]
    found = [by_word.get(text) or dict(_written(text)) for text in dict.fromkeys(proposed) if text]
    chosen = [one for i, one in enumerate([*found, *entries]) if one not in [*found, *entries][:i]]
    known = ({k: w for k, w in one.items() if writable(session, w)} for one in chosen)
    return [Concept(words=words) for words in known if words][:most]


def _is_text(lead: Lead) -> bool:
    return lead.kind in ("token", "phrase")


def _written(text: str) -> Iterator[tuple[str, str]]:
    """As it is, by its script, and in Latin letters."""
    from anyascii import anyascii

    yield script(text), text
    latin = anyascii(text).strip()
    if latin and latin != text:
        yield f"{script(text)} in Latin letters", latin


def script(text: str) -> str:
    """The script of most letters, as Unicode names begin: `LATIN`, `CYRILLIC`, `HANGUL`."""
    names = [unicodedata.name(char, "").split(" ")[0] for char in text if char.isalpha()]
    return Counter(names).most_common(1)[0][0] if names else "no script"
