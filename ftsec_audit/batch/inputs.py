"""What a batch is asked to scan: references, files that list them, standard input."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TextIO

from pydantic import TypeAdapter, ValidationError

from ftsec_audit import models_list
from ftsec_audit.errors import UsageError
from ftsec_audit.models_list import Model

LISTS = (".txt", ".jsonl", ".yaml", ".yml")
"""Endings by which an argument is known to list models rather than to be one."""

_MODEL = TypeAdapter(Model)


def from_arguments(targets: Iterable[str], standard_input: TextIO) -> Iterator[Model]:
    """Each target, the lines of `-`, and what files that end as lists do hold. Raises UsageError."""
    for target in targets:
        if target == "-":
            yield from from_lines(standard_input, where="standard input")
        elif target.endswith(LISTS) and Path(target).is_file():
            yield from from_file(Path(target))
        else:
            yield Model(model=target)


def from_file(path: Path) -> Iterator[Model]:
    """YAML as for `scan -r`, else one model per line. Raises UsageError naming the line."""
    if path.suffix in (".yaml", ".yml"):
        yield from models_list.load(path)
        return
    try:
        with path.open(encoding="utf-8") as lines:
            yield from from_lines(lines, where=str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(str(error), where=str(path)) from error


def from_lines(lines: Iterable[str], *, where: str) -> Iterator[Model]:
    """One per line: a reference, or a JSON object or string; blank lines and `#` comments are skipped."""
    for number, line in enumerate(lines, start=1):
        if line.lstrip().startswith(("{", '"')):
            try:
                yield _MODEL.validate_json(line)
            except ValidationError as error:
                reason = "; ".join(mistake["msg"] for mistake in error.errors())
                raise UsageError(f"names no model: {reason}", where=f"{where}:{number}") from error
        else:
            yield from models_list.from_lines([line])
