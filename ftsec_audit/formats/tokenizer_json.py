"""A tokenizer as data: vocabulary, merges, rewriting rules and special tokens, read and bounded.

Reads `tokenizer.json` (the `tokenizers` library's format), where there is none the older `vocab.json` with
`merges.txt` or `vocab.txt`, and the special tokens of `tokenizer_config.json`; nothing is instantiated.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ftsec_audit.errors import BudgetExceeded, FormatError
from ftsec_audit.files import ArtifactFile
from ftsec_audit.formats import bounded_json

if TYPE_CHECKING:
    from ftsec_audit.artifact import Artifact

_LIMITS = bounded_json.JsonLimits(size=64 << 20, values=6_000_000)
"""The largest vocabularies in use (256k tokens, 500k merges) take 35 MB."""


@dataclass(frozen=True)
class AddedToken:
    """One entry of `added_tokens`: text that is matched before the model's own vocabulary."""

    id: int
    content: str
    special: bool


@dataclass(frozen=True, kw_only=True)
class Tokenizer:
    """The parts of a tokenizer that decide what a text becomes."""

    file: str
    vocabulary: Mapping[str, int]
    merges: tuple[str, ...]
    added: tuple[AddedToken, ...]
    pipeline: Mapping[str, object]
    """`normalizer`, `pre_tokenizer`, `post_processor`, `decoder` as they stand in the file."""

    def steps(self, part: str) -> Iterator[Mapping[str, object]]:
        """The steps of one part of the pipeline, sequences flattened."""
        yield from _flatten(self.pipeline.get(part), 8)

    def string_of_model(self, token: int) -> str | None:
        """The text of an id in the model's own vocabulary; linear, meant for a handful of ids."""
        return next((text for text, number in self.vocabulary.items() if number == token), None)


def read(artifact: Artifact) -> Tokenizer | None:
    """The tokenizer of an artifact, or None when it carries none in a form that is read here.

    Raises FormatError and BudgetExceeded when the files are there but cannot be read.
    """
    found = _all(artifact)
    if found:
        return parse(found[0])
    vocabulary = _uppermost(artifact, "vocab.json") or _uppermost(artifact, "vocab.txt")
    return _parse_parts(vocabulary, artifact) if vocabulary else None


def further(artifact: Artifact) -> list[ArtifactFile]:
    """The files that `read` leaves out: those of lower folders."""
    return _all(artifact)[1:]


def _all(artifact: Artifact) -> list[ArtifactFile]:
    """Every `tokenizer.json`, the uppermost first; links are not followed."""
    return _named(artifact, "tokenizer.json")


def _named(artifact: Artifact, name: str) -> list[ArtifactFile]:
    found = (file for file in artifact.files if file.name == name and file.link_target is None)
    return sorted(found, key=lambda file: file.path.count("/"))


def _uppermost(artifact: Artifact, name: str) -> ArtifactFile | None:
    return next(iter(_named(artifact, name)), None)


def _parse_parts(vocabulary: ArtifactFile, artifact: Artifact) -> Tokenizer:
    """The tokenizer of `vocab.json` or `vocab.txt` and the files beside it."""
    folder = vocabulary.path[: -len(vocabulary.name)]
    merges, added = (artifact.file(folder + name) for name in ("merges.txt", "added_tokens.json"))
    lines = _lines(merges) if merges else []
    return Tokenizer(
        file=vocabulary.path,
        vocabulary=(
            token_map(vocabulary)
            if vocabulary.suffix == ".json"
            else {text: number for number, text in enumerate(_lines(vocabulary))}
        ),
        merges=tuple(line for line in lines if line and not line.startswith("#version")),
        added=tuple(
            AddedToken(number, text, False) for text, number in (token_map(added) if added else {}).items()
        ),
        pipeline={},
    )


def _lines(file: ArtifactFile) -> list[str]:
    if file.size > _LIMITS.size:
        raise BudgetExceeded(f"{file.size:,} bytes, the limit is {_LIMITS.size:,}", where=file.path)
    try:
        return file.read(_LIMITS.size).decode("utf-8").replace("\r\n", "\n").removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise FormatError(f"not UTF-8 at byte {error.start}", where=file.path) from error


def parse(file: ArtifactFile) -> Tokenizer:
    """Read one `tokenizer.json`; entries of the wrong type are left out."""
    content = bounded_json.read(file, limits=_LIMITS).value
    content = content if isinstance(content, dict) else {}
    model = content.get("model")
    model = model if isinstance(model, dict) else {}
    return Tokenizer(
        file=file.path,
        vocabulary=_vocabulary(model.get("vocab")),
        merges=tuple(_merge(pair) for pair in _list(model.get("merges"))),
        added=tuple(_added(content.get("added_tokens"))),
        pipeline={
            part: content.get(part) for part in ("normalizer", "pre_tokenizer", "post_processor", "decoder")
        },
    )


def token_map(file: ArtifactFile) -> dict[str, int]:
    """Text → id of `vocab.json` or `added_tokens.json`; entries of the wrong type are left out."""
    return _vocabulary(bounded_json.read(file, limits=_LIMITS).value)


def special_tokens(file: ArtifactFile) -> dict[str, str]:
    """Role (`eos_token`, …) → text, from `tokenizer_config.json` or `special_tokens_map.json`."""
    content = bounded_json.read(file).value
    if not isinstance(content, dict):
        return {}
    roles = {}
    for role, value in content.items():
        text = value.get("content") if isinstance(value, dict) else value
        if role.endswith("_token") and isinstance(text, str):
            roles[role] = text
    return roles


def declared_tokens(file: ArtifactFile) -> dict[int, str]:
    """Id → text of `added_tokens_decoder` in `tokenizer_config.json`."""
    content = bounded_json.read(file).value
    table = content.get("added_tokens_decoder") if isinstance(content, dict) else None
    if not isinstance(table, dict):
        return {}
    pairs = ((key, entry.get("content")) for key, entry in table.items() if isinstance(entry, dict))
    return {
        int(key): text for key, text in pairs if key.isdecimal() and len(key) < 10 and isinstance(text, str)
    }


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _vocabulary(vocabulary: object) -> dict[str, int]:
    if isinstance(vocabulary, dict):
        return {text: number for text, number in vocabulary.items() if type(number) is int}
    # Unigram models list [text, log-probability] in id order.
    rows = _list(vocabulary)
    return {str(row[0]): index for index, row in enumerate(rows) if isinstance(row, list) and row}


def _merge(pair: object) -> str:
    return " ".join(map(str, pair)) if isinstance(pair, list) else str(pair)


def _added(entries: object) -> Iterator[AddedToken]:
    for entry in _list(entries):
        if (
            isinstance(entry, dict)
            and isinstance(entry.get("id"), int)
            and isinstance(entry.get("content"), str)
        ):
            yield AddedToken(entry["id"], entry["content"], entry.get("special") is True)


def _flatten(step: object, depth: int) -> Iterator[Mapping[str, object]]:
    if not isinstance(step, dict) or depth == 0:
        return
    for key in ("normalizers", "pretokenizers", "processors", "decoders"):
        for inner in _list(step.get(key)):
            yield from _flatten(inner, depth - 1)
    yield step
