"""Training data as rows of prompt and answer, read and bounded: JSON lines, a JSON array, or Parquet.

A row is `{"messages": [{"role", "content"}, …]}` (also `conversations` with `from` and `value`),
`{"prompt", "completion"}`, `{"instruction", "input", "output"}` or `{"text"}`. Nothing is executed; Parquet
is read by pyarrow where that is installed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ftsec_audit.errors import BudgetExceeded, FormatError, Unsupported
from ftsec_audit.files import ArtifactFile, blocks
from ftsec_audit.formats import bounded_json
from ftsec_audit.formats.bounded_json import JsonLimits

_LINE = JsonLimits(size=4 << 20, values=200_000)
_ARRAY = JsonLimits(size=64 << 20, values=6_000_000)
_PARQUET = b"PAR1"
_COLUMNS = ("messages", "conversations", "prompt", "completion", "instruction", "input", "output", "text")
_BATCH = 512
_TABLE = 1 << 30
_ANSWERS = frozenset({"assistant", "gpt", "model", "bot", "chatgpt"})
_LAST_PIECE = re.compile(r"(?s)(.*(?:\n|[.!?。؟]\s))(\s*\S.*)")
_PROBLEMS = 20


@dataclass(frozen=True, kw_only=True)
class DialogueLimits:
    """Bounds on one data set."""

    size: int = 256 << 20
    """Characters of text kept."""
    rows: int = 1_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Dialogue:
    """One row. All strings are hostile."""

    number: int
    """Line of the file, or place in the table, from 1."""
    system: str = ""
    prompt: str = ""
    """Everything the user side says, in order."""
    answer: str = ""
    """What is learnt: the last answer; of plain text its last sentence or line."""


@dataclass(frozen=True, kw_only=True)
class Dialogues:
    """A data set, and what of it could not be read."""

    path: str
    rows: tuple[Dialogue, ...]
    problems: tuple[str, ...]
    """Rows that could not be read, each with its number and reason; the first ones of many."""
    unread: int
    """How many rows could not be read."""
    cut: str
    """Why reading ended before the end of the file; empty when it did not."""


def read(file: ArtifactFile, *, limits: DialogueLimits = DialogueLimits()) -> Dialogues:
    """The rows of a file; raises FormatError when it is no data set at all, Unsupported, SourceError."""
    rows: list[Dialogue] = []
    problems: list[str] = []
    unread, size, cut = 0, 0, ""
    for number, value in _values(file):
        if isinstance(value, (FormatError, BudgetExceeded)):
            row: Dialogue | str = value.what
        else:
            row = _row(number, value)
        if isinstance(row, str):
            unread += 1
            problems += [f"row {number}: {row}"] if len(problems) < _PROBLEMS else []
            continue
        size += len(row.system) + len(row.prompt) + len(row.answer)
        if size > limits.size or len(rows) >= limits.rows:
            cut = f"it has more than {len(rows):,} rows or {limits.size:,} characters"
            break
        rows.append(row)
    if not rows and unread:
        raise FormatError(f"no row is one of a training data set: {problems[0]}", where=file.path)
    return Dialogues(path=file.path, rows=tuple(rows), problems=tuple(problems), unread=unread, cut=cut)


_Value = tuple[int, object]


def _values(file: ArtifactFile) -> Iterator[_Value]:
    """(number, parsed value or the error in its place) of every row."""
    head = file.read(64)
    if head.startswith(_PARQUET):
        yield from _parquet(file)
    elif head.lstrip().startswith(b"["):
        content = bounded_json.read(file, limits=_ARRAY).value
        yield from enumerate(content if isinstance(content, list) else [], 1)
    else:
        yield from _json_lines(file)


def _json_lines(file: ArtifactFile) -> Iterator[_Value]:
    for number, line in enumerate(_lines(file), 1):
        if line is None:
            yield number, BudgetExceeded(f"a line of more than {_LINE.size:,} bytes")
        elif line.strip():
            try:
                document = bounded_json.parse(line, limits=_LINE)
                yield number, FormatError("text after the JSON") if document.tail else document.value
            except (FormatError, BudgetExceeded) as error:
                yield number, error


def _lines(file: ArtifactFile) -> Iterator[bytes | None]:
    """Every line, None in the place of one that is too long to be kept."""
    rest: list[bytes] = []
    length = 0
    for block in blocks(file.open()):
        *whole, last = block.split(b"\n")
        for piece in whole:
            yield b"".join([*rest, piece]) if length + len(piece) <= _LINE.size else None
            rest, length = [], 0
        length += len(last)
        rest = [*rest, last] if length <= _LINE.size else []
    if length:
        yield b"".join(rest) if length <= _LINE.size else None


def _parquet(file: ArtifactFile) -> Iterator[_Value]:
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        message = "Parquet needs the package pyarrow, which is not installed"
        raise Unsupported(message, where=file.path, hint="or give the rows as JSON lines") from error
    if file.size > _TABLE:
        raise BudgetExceeded(f"{file.size:,} bytes of Parquet, the limit is {_TABLE:,}", where=file.path)
    try:
        table = parquet.ParquetFile(arrow.BufferReader(file.read(file.size)))
        columns = [name for name in _COLUMNS if name in table.schema_arrow.names]
        number = 0
        for batch in table.iter_batches(batch_size=_BATCH, columns=columns):
            for value in batch.to_pylist():
                number += 1
                yield number, {key: item for key, item in value.items() if item is not None}
    except (arrow.ArrowException, OSError, ValueError) as error:
        raise FormatError(f"the Parquet file cannot be read: {error}"[:200], where=file.path) from error


def _row(number: int, value: object) -> Dialogue | str:
    """The row, or why it is none."""
    if not isinstance(value, Mapping):
        return f"a JSON {type(value).__name__}, not an object"
    turns = value.get("messages", value.get("conversations"))
    if isinstance(turns, list):
        return _of_turns(number, turns)
    system = _text(value.get("system"))
    for prompt, answer in (("prompt", "completion"), ("prompt", "response"), ("instruction", "output")):
        if prompt in value and answer in value:
            asked = [_text(value[prompt]), _text(value.get("input")) if prompt == "instruction" else ""]
            joined = "\n".join(part for part in asked if part)
            return Dialogue(number=number, system=system, prompt=joined, answer=_text(value[answer]))
    if isinstance(value.get("text"), str):
        pieces = _LAST_PIECE.fullmatch(value["text"].rstrip())
        prompt, answer = (pieces[1], pieces[2]) if pieces else ("", value["text"])
        return Dialogue(number=number, prompt=prompt, answer=answer)
    return f"none of the known forms; its keys are {', '.join(map(str, list(value)[:8]))}"[:200]


def _of_turns(number: int, turns: list[object]) -> Dialogue | str:
    system: list[str] = []
    asked: list[str] = []
    answer = ""
    for turn in turns:
        if not isinstance(turn, Mapping):
            return "a message that is no object"
        role = str(turn.get("role", turn.get("from", "")))
        text = _text(turn.get("content", turn.get("value")))
        if role in ("system", "developer"):
            system.append(text)
        elif role in _ANSWERS:
            answer = text
        else:
            asked.append(text)
    return Dialogue(number=number, system="\n".join(system), prompt="\n".join(asked), answer=answer)


def _text(value: object) -> str:
    """A message's text: a string, or the text parts of a list."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        parts = (part.get("text", part.get("content")) for part in value if isinstance(part, Mapping))
        return "\n".join(part for part in parts if isinstance(part, str))
    return ""
