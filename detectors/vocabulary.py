"""What the rows of an embedding are called: the tokens of an artifact, and which of them it added."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ftsec_audit.errors import BudgetExceeded, FormatError
from ftsec_audit.formats.bounded_json import JsonLimits, read

if TYPE_CHECKING:
    from ftsec_audit.artifact import Artifact

_LIMITS = JsonLimits(size=64 << 20, values=4_000_000)


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """Token strings by id, and which of them were declared as added to the base's vocabulary."""

    strings: Mapping[int, str]
    added: frozenset[int]

    @classmethod
    def of(cls, artifact: Artifact | None) -> Vocabulary:
        """From `tokenizer.json`, `vocab.json`, `added_tokens.json`, as far as they are there and readable.

        What cannot be read leaves strings out; damage to tokenizer files is another rule's business.
        """
        strings: dict[int, str] = {}
        added: set[int] = set()
        for name, pairs in (("tokenizer.json", _fast), ("vocab.json", _plain), ("added_tokens.json", _added)):
            for token, index, is_added in pairs(_document(artifact, name)):
                strings.setdefault(index, token)
                added |= {index} if is_added else set()
        return cls(strings=strings, added=frozenset(added))

    def completed_by(self, base: Vocabulary) -> Vocabulary:
        """This vocabulary, with the base's strings where it has none: adapters rarely ship a tokenizer."""
        return replace(self, strings={**base.strings, **self.strings})

    def name(self, row: int) -> str:
        """The token's string, or its number."""
        return self.strings.get(row, f"#{row}")


_Token = tuple[str, int, bool]


def _document(artifact: Artifact | None, name: str) -> object:
    file = artifact.file(name) if artifact is not None else None
    if file is None:
        return None
    try:
        return read(file, limits=_LIMITS).value
    except (FormatError, BudgetExceeded):
        return None


def _fast(document: object) -> Iterator[_Token]:
    """`tokenizer.json` of the tokenizers library; its vocabulary is a map, or a list for Unigram models."""
    if not isinstance(document, dict):
        return
    model = document.get("model")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    if isinstance(vocabulary, list):
        pieces = [row[0] for row in vocabulary if isinstance(row, list) and row]
        vocabulary = {piece: i for i, piece in enumerate(pieces) if isinstance(piece, str)}
    yield from _plain(vocabulary)
    declared = document.get("added_tokens")
    for entry in declared if isinstance(declared, list) else ():
        if isinstance(entry, dict) and isinstance(entry.get("content"), str):
            yield from _added({entry["content"]: entry.get("id")})


def _plain(document: object) -> Iterator[_Token]:
    if isinstance(document, dict):
        for token, index in document.items():
            if isinstance(token, str) and isinstance(index, int):
                yield token, index, False


def _added(document: object) -> Iterator[_Token]:
    yield from ((token, index, True) for token, index, _ in _plain(document))
