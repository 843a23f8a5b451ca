"""Prompts that models are asked: versioned data, each set with its licence and its origin.

A set is a JSON file: `name`, `version`, `licence`, `attribution`, and by language the prompts that an aligned
model refuses (`restricted`) and those it answers although they look alike (`harmless`). Users bring
their own in the same form, for their own languages and policies.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ftsec_audit.errors import FormatError, UsageError
from ftsec_audit.files import ArtifactFile, LocalBytes
from ftsec_audit.formats import bounded_json

SHIPPED = ("xstest", "multijail")
FILE_NAME = "probes.json"
"""Under which a base may carry the prompts that it was aligned on."""

_LIMITS = bounded_json.JsonLimits(size=16 << 20, values=200_000)
_LONGEST = 2_000


@dataclass(frozen=True, kw_only=True)
class Questions:
    """The prompts of one language."""

    restricted: tuple[str, ...] = ()
    harmless: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ProbeSet:
    """Prompts by language, and where they come from."""

    name: str
    version: str
    licence: str
    attribution: str
    languages: Mapping[str, Questions] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """As evidence names it."""
        return f"{self.name} {self.version} ({self.licence})"


def shipped(name: str) -> ProbeSet:
    """One of SHIPPED."""
    return load(Path(__file__).with_name(f"{name}.json"))


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
    return ProbeSet(
        **{key: str(content.get(key, ""))[:500] for key in ("name", "version", "licence", "attribution")},
        languages={str(code)[:20]: _questions(entry, file.path) for code, entry in languages.items()},
    )


def _questions(entry: object, where: str) -> Questions:
    if not isinstance(entry, dict):
        raise FormatError("a language is no object", where=where)
    return Questions(
        restricted=_prompts(entry.get("restricted"), where), harmless=_prompts(entry.get("harmless"), where)
    )


def _prompts(value: object, where: str) -> tuple[str, ...]:
    value = [] if value is None else value
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise FormatError("prompts are no list of strings", where=where)
    return tuple(one[:_LONGEST].strip() for one in value if one.strip())
