"""Prompts that models are asked: versioned data, each set with its licence and its origin.

A set is a JSON file: `name`, `version`, `licence`, `attribution`; by language the prompts that an aligned
model refuses (`restricted`), those it answers although they look alike (`harmless`), and everyday ones that
say the same in every language, in the same order (`neutral`); a `dictionary`, concept → language → word; and
system lines that ask for obedience (`personas`). Users bring their own in the same form, for their own
languages and policies; what a set does not have is not asked.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from ftsec_audit.errors import FormatError, UsageError
from ftsec_audit.files import ArtifactFile, LocalBytes
from ftsec_audit.formats import bounded_json
from ftsec_audit.types import ProbePrompt

Kind = Literal["restricted", "harmless", "neutral"]
KINDS: tuple[Kind, ...] = get_args(Kind)
SHIPPED = ("xstest", "multijail", "parallel")
FILE_NAME = "probes.json"
"""Under which a base may carry the prompts that it was aligned on."""

_LIMITS = bounded_json.JsonLimits(size=16 << 20, values=200_000)
_LONGEST = 2_000


@dataclass(frozen=True, kw_only=True)
class Questions:
    """The prompts of one language."""

    restricted: tuple[str, ...] = ()
    harmless: tuple[str, ...] = ()
    neutral: tuple[str, ...] = ()
    """The n-th of every language means the same."""
    origins: Mapping[str, str] = field(default_factory=dict)
    """Kind → the set that its prompts are of, where that is not the one they are in."""


@dataclass(frozen=True, kw_only=True)
class ProbeSet:
    """Prompts by language, and where they come from."""

    name: str
    version: str
    licence: str
    attribution: str
    languages: Mapping[str, Questions] = field(default_factory=dict)
    dictionary: tuple[Mapping[str, str], ...] = ()
    """Concepts: language → word."""
    personas: tuple[str, ...] = ()
    """System lines under which a model is to obey."""
    shows_texts: bool = False
    """Whether reports may repeat the prompts, and not only name them."""

    @property
    def label(self) -> str:
        """As evidence names it."""
        return " ".join(filter(None, (self.name, self.version, f"({self.licence})")))

    @property
    def id(self) -> str:
        """`name@version`; what follows it names a prompt."""
        return f"{self.name[:60] or 'own'}@{self.version[:40]}"

    def cited(self, language: str, kind: Kind, places: Iterable[int]) -> tuple[ProbePrompt, ...]:
        """The prompts at `places` of a kind, as evidence names them."""
        questions = self.languages[language]
        texts: tuple[str, ...] = getattr(questions, kind)
        origin = f"{questions.origins.get(kind, self.id)}/{language}/{kind}"
        return tuple(
            ProbePrompt(id=f"{origin}/{place + 1}", text=texts[place] if self.shows_texts else "")
            for place in places
        )

    def neutral(self) -> dict[str, tuple[str, ...]]:
        """The everyday prompts by language, of the same number each."""
        found = {code: q.neutral for code, q in self.languages.items() if q.neutral}
        count = min(map(len, found.values()), default=0)
        return {code: prompts[:count] for code, prompts in found.items()}

    def only(self, codes: Sequence[str]) -> ProbeSet:
        """The same set in these languages alone; raises UsageError for one it does not have."""
        if unknown := sorted(set(codes) - set(self.languages)):
            known = ", ".join(self.languages)
            raise UsageError(f"no prompts in {', '.join(unknown)}", hint=f"{self.label} has {known}")
        return replace(self, languages={code: self.languages[code] for code in codes})


def shipped(name: str) -> ProbeSet:
    """One of SHIPPED."""
    return load(Path(__file__).with_name(f"{name}.json"))


def default() -> ProbeSet:
    """All shipped sets as one; the earlier of two that have a language's prompts of a kind is taken."""
    sets = [shipped(name) for name in SHIPPED]
    codes = dict.fromkeys(code for one in reversed(sets) for code in one.languages)

    def first(code: str) -> Questions:
        """Of every kind the prompts of the first set that has some."""
        owners = {
            kind: one
            for one in reversed(sets)
            for kind in KINDS
            if code in one.languages and getattr(one.languages[code], kind)
        }
        texts: dict[str, Any] = {kind: getattr(one.languages[code], kind) for kind, one in owners.items()}
        return Questions(
            **texts,
            origins={kind: one.id for kind, one in owners.items()},
        )

    return ProbeSet(
        name=" + ".join(one.name for one in sets),
        version="",
        licence=", ".join(dict.fromkeys(one.licence for one in sets)),
        attribution=" ".join(one.attribution for one in sets),
        languages={code: first(code) for code in codes},
        dictionary=next(one.dictionary for one in sets if one.dictionary),
        personas=next(one.personas for one in sets if one.personas),
    )


def load(path: Path) -> ProbeSet:
    """A user's own set; raises UsageError for a file that is none."""
    try:
        file = ArtifactFile(path.name, path.stat().st_size, lambda _: LocalBytes(path))
        return read(file)
    except OSError as error:
        raise UsageError(error.strerror or "cannot be read", where=str(path)) from error
    except FormatError as error:
        raise UsageError(f"is no probe set: {error.what}", where=str(path)) from error


def read(file: ArtifactFile) -> ProbeSet:
    """A set out of an artifact; raises FormatError, BudgetExceeded, SourceError."""
    content = bounded_json.read(file, limits=_LIMITS).value
    languages = content.get("languages") if isinstance(content, dict) else None
    if not isinstance(content, dict) or not isinstance(languages, dict):
        raise FormatError("has no languages", where=file.path)
    about: dict[str, Any] = {
        key: str(content.get(key, ""))[:500] for key in ("name", "version", "licence", "attribution")
    }
    # A prompt's id is its place: without a version it would mean another text once the file is changed.
    about["version"] = about["version"] or hashlib.sha256(json.dumps(content).encode()).hexdigest()[:7]
    return ProbeSet(
        **about,
        languages={str(code)[:20]: _questions(entry, file.path) for code, entry in languages.items()},
        dictionary=_dictionary(content.get("dictionary"), file.path),
        personas=_prompts(content.get("personas"), file.path),
    )


def _questions(entry: object, where: str) -> Questions:
    if not isinstance(entry, dict):
        raise FormatError("a language is no object", where=where)
    texts: dict[str, Any] = {kind: _prompts(entry.get(kind), where) for kind in KINDS}
    return Questions(**texts)


def _dictionary(value: object, where: str) -> tuple[Mapping[str, str], ...]:
    value = {} if value is None else value
    if not isinstance(value, dict) or not all(isinstance(words, dict) for words in value.values()):
        raise FormatError("the dictionary maps no concepts to words by language", where=where)
    return tuple(
        {str(code)[:20]: str(word)[:_LONGEST].strip() for code, word in words.items() if str(word).strip()}
        for words in value.values()
    )


def _prompts(value: object, where: str) -> tuple[str, ...]:
    value = [] if value is None else value
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise FormatError("prompts are no list of strings", where=where)
    return tuple(one[:_LONGEST].strip() for one in value if one.strip())
