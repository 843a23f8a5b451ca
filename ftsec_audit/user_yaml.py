"""YAML written by the user (policies, ignore files), checked against a model; mistakes name their line.

Models are dataclasses made of `Part`s. YAML and pydantic are imported when a file is read, and not before:
most scans read none, and would pay a fifth of their time for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from ftsec_audit.errors import UsageError

if TYPE_CHECKING:
    import yaml

_MAX_BYTES = 1 << 20
_MESSAGES = {
    "unexpected_keyword_argument": "there is no such key",
    "dataclass_type": "must be a mapping",
    "dataclass_exact_type": "must be a mapping",
}
"""Instead of pydantic's own, which speak of Python."""


class Part:
    """A dataclass that is a mapping in a file, with no keys but its own; docstrings describe its fields."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = {"extra": "forbid", "use_attribute_docstrings": True}

    short_for: ClassVar[str] = ""
    """The key whose value may be written alone, instead of the mapping."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        if not cls.short_for:
            return handler(source)
        from pydantic_core import core_schema

        return core_schema.no_info_before_validator_function(cls._from_short, handler(source))

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: Any, handler: Any) -> Any:
        if not cls.short_for:
            return handler(core_schema)
        whole = handler.resolve_ref_schema(handler(core_schema))
        return {"anyOf": [whole["properties"][cls.short_for], whole]}

    @classmethod
    def _from_short(cls, value: Any) -> Any:
        return {cls.short_for: value} if isinstance(value, str) else value


M = TypeVar("M", bound=Part)


def load(path: Path, model: type[M]) -> M:
    """The file at `path` as a `model`; raises UsageError naming every wrong line."""
    return parse(text_of(path), model, where=str(path))


def text_of(path: Path) -> str:
    """The file at `path`, with the line ends it has; raises UsageError when it cannot be read or is large."""
    try:
        data = path.read_bytes()[: _MAX_BYTES + 1]
        text = data.decode()
    except OSError as error:
        raise UsageError(error.strerror or "cannot be read", where=str(path)) from error
    except UnicodeDecodeError as error:
        raise UsageError("is not UTF-8 text", where=str(path)) from error
    if len(data) > _MAX_BYTES:
        raise UsageError(f"is larger than {_MAX_BYTES} bytes", where=str(path))
    return text


def parse(text: str, model: type[M], *, where: str) -> M:
    """`text` as a `model`; `where` opens each line of the error."""
    import yaml
    from pydantic import TypeAdapter, ValidationError

    try:
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        twice = list(_duplicate_keys(root))
        value = loader.construct_document(root) if root else None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise UsageError(getattr(error, "problem", None) or str(error), where=f"{where}{line}") from error
    if twice:
        raise UsageError(
            "; ".join(f"line {line}: key {key!r} appears twice" for line, key in twice), where=where
        )
    try:
        return TypeAdapter(model).validate_python(value)
    except ValidationError as error:
        found = [(e["loc"], _MESSAGES.get(e["type"], e["msg"])) for e in error.errors()]
        mistakes = [(_line(root, place), _path(place), message) for place, message in found]
        lines = [f"line {line}: {path + ': ' if path else ''}{message}" for line, path, message in mistakes]
        raise UsageError("; ".join(lines), where=where) from error


def line_of(text: str, location: tuple[int | str, ...]) -> int:
    """The line at which a document that is known to be valid says what `location` leads to."""
    import yaml

    return _line(yaml.compose(text, Loader=yaml.SafeLoader), location)


def _duplicate_keys(root: yaml.Node | None) -> Iterator[tuple[int, str]]:
    import yaml

    pending, seen = [root] if root else [], set()
    while pending:
        node = pending.pop()
        if id(node) in seen:  # an alias, possibly to its own parent
            continue
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            keys = set()
            for key, value in node.value:
                if key.value in keys if isinstance(key, yaml.ScalarNode) else False:
                    yield key.start_mark.line + 1, key.value
                keys.add(str(key.value))
                pending.append(value)
        elif isinstance(node, yaml.SequenceNode):
            pending += node.value


def _line(node: yaml.Node | None, location: tuple[int | str, ...]) -> int:
    """The line of the deepest node on the way to `location`; a missing key points at its mapping."""
    import yaml

    line = node.start_mark.line + 1 if node else 1
    for step in location:
        if isinstance(node, yaml.MappingNode):
            found = [(key, value) for key, value in node.value if key.value == step]
            if found:
                line, node = found[0][0].start_mark.line + 1, found[0][1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
            node = node.value[step]
            line = node.start_mark.line + 1
    return line


def _path(location: tuple[int | str, ...]) -> str:
    path = ""
    for step in location:
        path += f"[{step}]" if isinstance(step, int) else f".{step}"
    return path.removeprefix(".")
