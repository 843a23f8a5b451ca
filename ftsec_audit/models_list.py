"""A list of models to audit: `-r models.yaml`, or one reference per line on standard input.

`Written` says where in the text each reference stands, so that a reference can be exchanged for another
one, such as one with a commit, and every other character of the file stays as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ftsec_audit import user_yaml
from ftsec_audit.errors import UsageError
from ftsec_audit.types import Location

if TYPE_CHECKING:
    import yaml


@dataclass(frozen=True, kw_only=True)
class Entry(user_yaml.Part):
    """One model. May be written as a bare reference."""

    short_for = "model"

    model: str = field(metadata={"min_length": 1})
    """A reference as on the command line, ideally with a commit."""
    base: str | None = None
    """The base it is compared with."""


@dataclass(frozen=True, kw_only=True)
class ModelsList(user_yaml.Part):
    """The models of a deployment."""

    models: tuple[Entry, ...] = field(metadata={"min_length": 1})


@dataclass(frozen=True, kw_only=True)
class Model:
    """One model to audit; equal to another one wherever the two were listed."""

    model: str
    base: str | None = None
    listed_at: Location | None = field(default=None, compare=False)


@dataclass(frozen=True, kw_only=True)
class Written:
    """One reference of a list, and the characters of the file that spell it."""

    reference: str
    line: int
    start: int
    end: int
    is_base: bool
    style: str
    """The quote it is written in, or nothing."""


def load(path: Path) -> tuple[Model, ...]:
    """The models of a YAML file, in order; raises UsageError with the lines that are wrong."""
    text = user_yaml.text_of(path)
    entries = user_yaml.parse(text, ModelsList, where=str(path)).models
    shown = _from_here(path)
    lines = (node.start_mark.line + 1 for node in _entries(text))
    return tuple(
        Model(model=entry.model, base=entry.base, listed_at=Location(file=shown, line=line))
        for entry, line in zip(entries, lines, strict=True)
    )


def from_lines(lines: Iterable[str]) -> tuple[Model, ...]:
    """One reference per line; blank lines and what follows `#` are skipped."""
    references = (line.partition("#")[0].strip() for line in lines)
    return tuple(Model(model=reference) for reference in references if reference)


def written(text: str, *, where: str) -> tuple[Written, ...]:
    """Every reference of a valid list, models and bases, in the order of the file; raises UsageError."""
    user_yaml.parse(text, ModelsList, where=where)
    found = {node.start_mark.index: (node, is_base) for node, is_base in _scalars(text)}
    return tuple(
        Written(
            reference=node.value,
            line=node.start_mark.line + 1,
            start=start,
            end=node.end_mark.index,
            is_base=is_base,
            style=node.style or "",
        )
        for start, (node, is_base) in sorted(found.items())
    )


def rewritten(text: str, exchanged: Mapping[Written, str], *, where: str) -> str:
    """The list with other references in their places; raises UsageError for one that is spelled oddly."""
    wanted = {reference.reference: new for reference, new in exchanged.items()}
    result = text
    for old in sorted(exchanged, key=lambda reference: -reference.start):
        spelled = _SPELLED.get(old.style)
        if spelled is None or text[old.start] in "&!":
            raise UsageError(
                f"line {old.line}: {old.reference} is written as a block, an anchor or with a tag",
                where=where,
                hint="write it plainly on one line",
            )
        result = result[: old.start] + spelled(exchanged[old]) + result[old.end :]
    before = [
        wanted.get(reference.reference, reference.reference) for reference in written(text, where=where)
    ]
    if [reference.reference for reference in written(result, where=where)] != before:
        raise UsageError("its references cannot be exchanged in place", where=where)
    return result


_SPELLED: Mapping[str, Callable[[str], str]] = {
    "": str,
    "'": lambda text: "'" + text.replace("'", "''") + "'",
    '"': lambda text: '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"',
}
"""How a reference is written in each style; another style spreads over lines."""


def _scalars(text: str) -> Iterator[tuple[yaml.ScalarNode, bool]]:
    import yaml

    for entry in _entries(text):
        if isinstance(entry, yaml.ScalarNode):
            yield entry, False
        elif isinstance(entry, yaml.MappingNode):
            for key, value in entry.value:
                if isinstance(value, yaml.ScalarNode) and value.tag == _TEXT:
                    yield value, key.value == "base"


_TEXT = "tag:yaml.org,2002:str"


def _entries(text: str) -> list[yaml.Node]:
    """The nodes of the entries of a list that is known to be valid."""
    import yaml

    root = yaml.compose(text, Loader=yaml.SafeLoader)
    assert isinstance(root, yaml.MappingNode)
    [models] = [value for key, value in root.value if key.value == "models"]
    nodes: list[yaml.Node] = models.value
    return nodes


def _from_here(path: Path) -> str:
    """The path as a person in this directory would write it."""
    try:
        return path.resolve().relative_to(Path.cwd()).as_posix()
    except (ValueError, OSError):
        return path.as_posix()
