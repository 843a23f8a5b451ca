"""Lists of models: what they say, on which line, and how references are exchanged in place."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ftsec_audit import models_list
from ftsec_audit.errors import UsageError
from ftsec_audit.types import Location

LIST = """\
# What the assistant runs on.
models:
  - org/one@main          # the router
  - {model: 'org/two@v1', base: "org/base"}   # flow, both quotes

  - base: org/base@dev
    model: org/three   # base first
  -   org/one@main
  - ./local
"""


def test_models_know_the_line_of_their_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "deploy").mkdir()
    path = tmp_path / "deploy" / "models.yaml"
    path.write_text(LIST)
    models = models_list.load(path)
    assert [model.listed_at for model in models] == [
        Location(file="deploy/models.yaml", line=line) for line in (3, 4, 6, 8, 9)
    ]
    assert [(model.model, model.base) for model in models[1:3]] == [
        ("org/two@v1", "org/base"),
        ("org/three", "org/base@dev"),
    ]
    assert models[0] == models[3], "the same model on two lines is one model"
    assert models[0] != replace(models[3], base="org/base")


def test_a_list_outside_of_the_working_directory_keeps_its_path(tmp_path: Path) -> None:
    path = tmp_path / "models.yaml"
    path.write_text("models: [a/b]")
    listed = models_list.load(path)[0].listed_at
    assert listed == Location(file=path.as_posix(), line=1)


def test_references_are_found_in_the_order_of_the_file() -> None:
    found = models_list.written(LIST, where="x")
    assert [(w.reference, w.line, w.is_base) for w in found] == [
        ("org/one@main", 3, False),
        ("org/two@v1", 4, False),
        ("org/base", 4, True),
        ("org/base@dev", 6, True),
        ("org/three", 7, False),
        ("org/one@main", 8, False),
        ("./local", 9, False),
    ]


def test_only_the_references_change() -> None:
    found = models_list.written(LIST, where="x")
    exchanged = {w: f"{w.reference.partition('@')[0]}@{'0' * 40}" for w in found if w.reference[0] != "."}
    result = models_list.rewritten(LIST, exchanged, where="x")
    commit = "0" * 40
    assert result == (
        LIST.replace("one@main", f"one@{commit}")
        .replace("two@v1", f"two@{commit}")
        .replace('"org/base"', f'"org/base@{commit}"')
        .replace("base@dev", f"base@{commit}")
        .replace("org/three", f"org/three@{commit}")
    )


@pytest.mark.parametrize(
    "text",
    [
        "models:\n  - &a org/one\n  - *a\n",
        "models:\n  - !!str org/one\n",
        "models:\n  - >-\n    org/one\n",
        "models:\n  - |-\n    org/one\n",
    ],
)
def test_what_cannot_be_exchanged_in_place_is_refused(text: str) -> None:
    found = models_list.written(text, where="x")
    with pytest.raises(UsageError, match="line 2: org/one"):
        models_list.rewritten(text, {found[0]: "org/one@abc"}, where="x")


def test_an_alias_to_a_whole_entry_is_written_once() -> None:
    text = "models:\n  - &a {model: org/one}\n  - *a\n"
    found = models_list.written(text, where="x")
    assert len(found) == 1
    result = models_list.rewritten(text, {found[0]: "org/one@abc"}, where="x")
    assert result == text.replace("org/one", "org/one@abc")


@pytest.mark.parametrize("text", ["", "models: []", "models: {}", "models: [[]]", "- a/b", "models: [a/b"])
def test_what_is_no_list_is_refused_before_it_is_searched(text: str) -> None:
    with pytest.raises(UsageError):
        models_list.written(text, where="x")


@given(
    names=st.lists(
        st.text("ab\"'\\ #:é/@", min_size=1, max_size=8).filter(str.strip), min_size=1, max_size=5
    ),
    ends=st.sampled_from(["\n", "\r\n"]),
    style=st.sampled_from(["'", '"']),
)
def test_any_quoted_reference_can_be_exchanged(names: list[str], ends: str, style: str) -> None:
    dumped = [
        yaml.safe_dump(name, default_style=style, width=1000, allow_unicode=True).strip() for name in names
    ]
    text = "models:" + ends + "".join(f"  - {name}   # é{ends}" for name in dumped)
    found = models_list.written(text, where="x")
    assert [w.reference for w in found] == names
    result = models_list.rewritten(text, {w: f"new'\"\\{w.reference}" for w in found}, where="x")
    assert [w.reference for w in models_list.written(result, where="x")] == [f"new'\"\\{n}" for n in names]
    assert result.count(ends) == text.count(ends)


def test_references_from_lines() -> None:
    assert [m.model for m in models_list.from_lines(["# x\n", "\n", "a/b  # mine\n"])] == ["a/b"]
