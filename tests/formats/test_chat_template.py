"""Every copy of a chat template is found, and what may hold one is never passed over in silence."""

from __future__ import annotations

import json

import pytest

from ftsec_audit.artifact import Artifact
from ftsec_audit.formats.chat_template import collect
from tests.builders.files import memory_file

TEMPLATE = "{{ messages[0].content }}"


def artifact(files: dict[str, bytes]) -> Artifact:
    return Artifact.of("a", "a", [memory_file(data, name) for name, data in files.items()])


def test_copies_of_all_places_are_found() -> None:
    found = collect(
        artifact(
            {
                "tokenizer_config.json": json.dumps({"chat_template": TEMPLATE}).encode(),
                "chat_template.json": json.dumps({"chat_template": {"rag": "x"}}).encode(),
                "processor_config.json": b'{"chat_template": [{"name": "tool_use", "template": "y"}]}',
                "chat_template.jinja": b"z",
                "additional_chat_templates/tool.jinja": b"w",
            }
        )
    )
    places = {"tokenizer_config.json", "chat_template.json#rag", "processor_config.json#tool_use"}
    places |= {"chat_template.jinja", "additional_chat_templates/tool.jinja#tool"}
    assert {copy.place for copy in found.copies} == places
    assert found.unread == ()


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("tokenizer_config.json", b'{"chat_template": "x"', "not valid JSON"),
        ("tokenizer_config.json", b'{"chat_template": "\xff"}', "not UTF-8"),
        ("chat_template.json", b"[" * 200 + b"]" * 200, "nested"),
        ("model.gguf", b"GGUF" + bytes(8), ""),
        ("chat_template.jinja", b" " * ((8 << 20) + 1), "the limit is"),
        ("processor_config.json", b" " * ((8 << 20) + 1), "the limit is"),
    ],
)
def test_what_may_hold_a_template_and_cannot_be_read_is_named(name: str, data: bytes, reason: str) -> None:
    (gap,) = collect(artifact({name: data})).unread
    assert gap.what == name
    assert gap.incomplete
    assert reason in gap.reason


def test_copies_beyond_the_limit_are_named() -> None:
    many = {f"additional_chat_templates/{i}.jinja": b"x" for i in range(65)}
    found = collect(artifact(many))
    assert len(found.copies) == 64
    assert [gap.what for gap in found.unread] == ["chat templates"]
    assert found.unread[0].incomplete
    assert collect(artifact(dict(list(many.items())[:64]))).unread == ()


def test_a_file_that_holds_no_template_is_no_gap() -> None:
    assert collect(artifact({"tokenizer_config.json": b"[]", "config.json": b"{"})).unread == ()
