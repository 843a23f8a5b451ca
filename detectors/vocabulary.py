"""What the rows of an embedding are called: the tokens of an artifact, and which of them it added."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ftsec_audit.errors import BudgetExceeded, FormatError
from ftsec_audit.formats import tokenizer_json

if TYPE_CHECKING:
    from ftsec_audit.artifact import Artifact
    from ftsec_audit.files import ArtifactFile


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
        for name in ("tokenizer.json", "vocab.json", "added_tokens.json"):
            own, declared = _read(artifact.file(name) if artifact is not None else None)
            strings = {index: token for token, index in (own | declared).items()} | strings
            added.update(declared.values())
        return cls(strings=strings, added=frozenset(added))

    def completed_by(self, base: Vocabulary) -> Vocabulary:
        """This vocabulary, with the base's strings where it has none: adapters rarely ship a tokenizer."""
        return replace(self, strings={**base.strings, **self.strings})

    def name(self, row: int) -> str:
        """The token's string, or its number."""
        return self.strings.get(row, f"#{row}")


def plain(token: str) -> str:
    """The token without case and signs of word boundaries: equal for spellings of one word."""
    return token.strip(" Ġ▁_#").casefold()


def _read(file: ArtifactFile | None) -> tuple[dict[str, int], dict[str, int]]:
    """Token → id of a file's own vocabulary, and of the tokens it declares as added."""
    if file is None:
        return {}, {}
    try:
        if file.name == "tokenizer.json":
            tokenizer = tokenizer_json.parse(file)
            return dict(tokenizer.vocabulary), {entry.content: entry.id for entry in tokenizer.added}
        tokens = tokenizer_json.token_map(file)
    except (FormatError, BudgetExceeded):
        return {}, {}
    return ({}, tokens) if file.name == "added_tokens.json" else (tokens, {})
