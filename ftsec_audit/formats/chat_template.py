"""Every copy of a chat template that an artifact carries.

A template can stand in `tokenizer_config.json` (a string, or a list of named ones), in
`chat_template.jinja` or `.json`, in `additional_chat_templates/`, in `processor_config.json` and in
the metadata of a GGUF file. Which copy wins depends on the program that loads the model, so all of
them are looked at.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ftsec_audit.errors import FtsecError
from ftsec_audit.files import ArtifactFile

if TYPE_CHECKING:
    from ftsec_audit.artifact import Artifact

_JSON_FILES = frozenset(
    ["tokenizer_config.json", "chat_template.json", "processor_config.json", "preprocessor_config.json"]
)
_FILE_BYTES = 8 << 20
_COPIES = 64


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


def collect(artifact: Artifact) -> list[TemplateCopy]:
    """All template copies, files in order; unreadable ones are left to the file checks."""
    copies: list[TemplateCopy] = []
    for file in artifact.files:
        if file.link_target is None and len(copies) < _COPIES:
            copies.extend(_copies_in(file))
    return copies[:_COPIES]


def _copies_in(file: ArtifactFile) -> Iterator[TemplateCopy]:
    try:
        if file.suffix == ".jinja" or file.suffix == ".jinja2":
            text = file.read(_FILE_BYTES).decode("utf-8", "replace")
            yield TemplateCopy(file.path, _name_of(file), text)
        elif file.name in _JSON_FILES:
            content = json.loads(file.read(_FILE_BYTES))
            if isinstance(content, dict):
                yield from _from_json(file.path, content.get("chat_template"))
        elif file.suffix == ".gguf":
            yield from _from_gguf(file)
    except (FtsecError, ValueError, RecursionError):
        return


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

    for key, text in gguf.read_header(file).templates():
        yield TemplateCopy(
            file.path, key.removeprefix("tokenizer.chat_template").strip(".") or "default", text
        )
