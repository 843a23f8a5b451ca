"""Every copy of a chat template that an artifact carries.

A template can stand in `tokenizer_config.json` (a string, or a list of named ones), in
`chat_template.jinja` or `.json`, in `additional_chat_templates/`, in `processor_config.json` and in
the metadata of a GGUF file. Which copy wins depends on the program that loads the model, so all of
them are looked at.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ftsec_audit.errors import BudgetExceeded, FormatError, FtsecError
from ftsec_audit.files import ArtifactFile
from ftsec_audit.formats import bounded_json
from ftsec_audit.formats.bounded_json import JsonLimits
from ftsec_audit.types import NotLookedAt

if TYPE_CHECKING:
    from ftsec_audit.artifact import Artifact

_JSON_FILES = frozenset(
    ["tokenizer_config.json", "chat_template.json", "processor_config.json", "preprocessor_config.json"]
)
_FILE_BYTES = 8 << 20
_JSON = JsonLimits(size=_FILE_BYTES)
_COPIES = 64
_MAY_HOLD = "may hold a chat template and cannot be read"


@dataclass(frozen=True)
class TemplateCopy:
    """One template and where it stands."""

    file: str
    name: str
    """`default`, or the name under which a tokenizer offers it (`tool_use`, `rag`, …)."""
    text: str

    @property
    def place(self) -> str:
        return self.file if self.name == "default" else f"{self.file}#{self.name}"


@dataclass(frozen=True, kw_only=True)
class Templates:
    """The copies of an artifact, files in order, and where there may be more of them."""

    copies: tuple[TemplateCopy, ...]
    unread: tuple[NotLookedAt, ...]

    @property
    def gap(self) -> str:
        """What could not be read, in words; empty when all was."""
        return "; ".join(f"{entry.what}: {entry.reason}" for entry in self.unread)


def collect(artifact: Artifact) -> Templates:
    """All template copies; files that could hold one and could not be read are named, never passed over."""
    copies: list[TemplateCopy] = []
    unread: list[NotLookedAt] = []
    for file in artifact.files:
        if file.link_target is None:
            try:
                copies.extend(_copies_in(file))
            except FtsecError as error:
                unread.append(
                    NotLookedAt(what=file.path, reason=f"{_MAY_HOLD}: {error.what}", incomplete=True)
                )
    if len(copies) > _COPIES:
        reason = f"{len(copies)} of them, the first {_COPIES} were judged"
        unread.append(NotLookedAt(what="chat templates", reason=reason, incomplete=True))
    return Templates(copies=tuple(copies[:_COPIES]), unread=tuple(unread))


def _copies_in(file: ArtifactFile) -> Iterator[TemplateCopy]:
    if file.suffix in (".jinja", ".jinja2"):
        if file.size > _FILE_BYTES:
            raise BudgetExceeded(f"{file.size:,} bytes, the limit is {_FILE_BYTES:,}")
        # What is not UTF-8 a loader refuses; here it is read as far as it goes.
        yield TemplateCopy(file.path, _name_of(file), file.read(_FILE_BYTES).decode("utf-8", "replace"))
    elif file.name in _JSON_FILES:
        content = bounded_json.read(file, limits=_JSON).value
        if isinstance(content, dict):
            yield from _from_json(file.path, content.get("chat_template"))
    elif file.suffix == ".gguf":
        yield from _from_gguf(file)


def _name_of(file: ArtifactFile) -> str:
    return "default" if file.name == "chat_template.jinja" else file.name.rsplit(".", 1)[0]


def _from_json(path: str, value: object) -> Iterator[TemplateCopy]:
    if isinstance(value, str):
        yield TemplateCopy(path, "default", value)
    elif isinstance(value, list):
        for item in value:
            if isinstance(item, dict) and isinstance(item.get("template"), str):
                yield TemplateCopy(path, str(item.get("name", "default")), item["template"])
    elif isinstance(value, dict):
        for name, text in value.items():
            if isinstance(text, str):
                yield TemplateCopy(path, str(name), text)


def _from_gguf(file: ArtifactFile) -> Iterator[TemplateCopy]:
    from ftsec_audit.formats import gguf

    header = gguf.read_header(file)
    for key, text in header.templates():
        yield TemplateCopy(
            file.path, key.removeprefix("tokenizer.chat_template").strip(".") or "default", text
        )
    fatal = next((problem for problem in header.problems if problem.fatal), None)
    if fatal:
        raise FormatError(fatal.message, where=file.path)
