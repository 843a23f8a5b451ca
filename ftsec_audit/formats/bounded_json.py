"""JSON from untrusted files: bounded before it is parsed, and honest about what a parser would hide.

Python's own scanner does the work. Around it: limits on bytes, values and nesting, strict UTF-8 without
lone surrogates, and a record of what JSON readers disagree on (repeated keys, NaN and Infinity).
"""

from __future__ import annotations

import gc
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ftsec_audit.errors import BudgetExceeded, FormatError
from ftsec_audit.files import ArtifactFile

_SPACE = " \t\r\n"


@dataclass(frozen=True, kw_only=True)
class JsonLimits:
    """Bounds under which a document is parsed; a value costs at most some 100 bytes of memory."""

    size: int = 32 << 20
    """Bytes of text."""
    values: int = 2_000_000
    """Objects, arrays and commas together, counted in the text before parsing."""
    nesting: int | None = 100
    """Objects and arrays inside each other; None leaves it at what the interpreter can bear."""


class RepeatedKeys(dict[str, object]):
    """An object that spelled a key more than once; like most readers it holds the last value."""

    def __init__(self, pairs: list[tuple[str, object]]) -> None:
        super().__init__(pairs)
        counts = Counter(key for key, _ in pairs)
        self.keys_repeated = tuple(key for key, count in counts.items() if count > 1)


@dataclass(frozen=True, kw_only=True)
class JsonDocument:
    """A parsed document and the ways in which it is unusual."""

    value: object
    tail: str
    """What follows the document, without white space at the end."""
    repeated: tuple[str, ...]
    """Keys that occur more than once in one object, anywhere."""
    constants: tuple[str, ...]
    """`NaN`, `Infinity` or `-Infinity`, which JSON does not have."""


@contextmanager
def collector_paused() -> Iterator[None]:
    """While a large tree is built, the garbage collector would walk it again and again: half the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def parse(data: bytes, *, limits: JsonLimits = JsonLimits(), where: str = "") -> JsonDocument:
    """Parse one JSON document at the start of `data`; text after it is left to the caller.

    Raises FormatError (not UTF-8, not JSON, lone surrogates) and BudgetExceeded.
    """
    if len(data) > limits.size:
        raise BudgetExceeded(f"{len(data):,} bytes of JSON, the limit is {limits.size:,}", where=where)
    values = data.count(b"{") + data.count(b"[") + data.count(b",")
    if values > limits.values:
        raise BudgetExceeded(f"some {values:,} JSON values, the limit is {limits.values:,}", where=where)
    repeated: list[str] = []
    constants: list[str] = []

    def build(pairs: list[tuple[str, object]]) -> dict[str, object]:
        members = dict(pairs)
        if len(members) == len(pairs):
            return members
        members = RepeatedKeys(pairs)
        repeated.extend(members.keys_repeated)
        return members

    def constant(name: str) -> float:
        constants.append(name)
        return float(name.replace("Infinity", "inf"))

    try:
        text = data.decode("utf-8")
        decoder = json.JSONDecoder(object_pairs_hook=build, parse_constant=constant)
        value, end = decoder.raw_decode(text, len(text) - len(text.lstrip(_SPACE)))
    except UnicodeDecodeError as error:
        raise FormatError(f"not UTF-8 at byte {error.start}", where=where) from error
    except RecursionError as error:
        raise BudgetExceeded("JSON nested too deeply", where=where) from error
    except ValueError as error:  # bad syntax, or an integer of thousands of digits
        raise FormatError(f"not valid JSON: {error}", where=where) from error
    if b"\\u" in data:
        _refuse_surrogates(value, where)
    if limits.nesting is not None and depth(value, limits.nesting) > limits.nesting:
        raise BudgetExceeded(f"JSON nested deeper than {limits.nesting} levels", where=where)
    return JsonDocument(
        value=value,
        tail=text[end:].rstrip(_SPACE),
        repeated=tuple(repeated),
        constants=tuple(constants),
    )


def read(file: ArtifactFile, *, limits: JsonLimits = JsonLimits()) -> JsonDocument:
    """The whole of a file as one JSON document; raises as `parse`, and SourceError."""
    if file.size > limits.size:
        raise BudgetExceeded(f"{file.size:,} bytes, the limit is {limits.size:,}", where=file.path)
    document = parse(file.read(limits.size), limits=limits, where=file.path)
    if document.tail:
        raise FormatError("text after the end of the JSON document", where=file.path)
    return document


def depth(value: object, stop: int) -> int:
    """How deeply objects and arrays are nested; counting ends just above `stop`."""
    current, level = _containers([value]), 0
    while current and level <= stop:
        current, level = _containers(child for node in current for child in node), level + 1
    return level


def _containers(values: Iterable[object]) -> list[Iterable[object]]:
    """The objects (as their members) and arrays among `values`."""
    return [
        value.values() if isinstance(value, dict) else value
        for value in values
        if isinstance(value, (dict, list))
    ]


def _refuse_surrogates(value: object, where: str) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        raise FormatError("a string holds half of a surrogate pair", where=where) from error
