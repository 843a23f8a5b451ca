from __future__ import annotations

from pathlib import Path

import pytest

from ftsec_audit.errors import SourceError
from ftsec_audit.sources.references import HubReference, LocalReference, is_repository, parse


@pytest.mark.parametrize(
    ("text", "repository", "revision", "folder"),
    [
        ("org/model", "org/model", "", ""),
        ("gpt2", "gpt2", "", ""),
        ("org/model@v1.0", "org/model", "v1.0", ""),
        ("org/model@refs/pr/7", "org/model", "refs/pr/7", ""),
        ("org/model@refs/pr/7/sub/folder", "org/model", "refs/pr/7", "sub/folder"),
        ("org/model@feature%2Fx/sub", "org/model", "feature/x", "sub"),
        ("org/model/sub/folder", "org/model", "", "sub/folder"),
        ("hf://org/model", "org/model", "", ""),
        ("HF://org/model@main/sub/", "org/model", "main", "sub"),
        ("hf://models/org/model@main/a/b.safetensors", "org/model", "main", "a/b.safetensors"),
        ("hf://gpt2@main", "gpt2", "main", ""),
    ],
)
def test_hub_references(text: str, repository: str, revision: str, folder: str) -> None:
    assert parse(text) == HubReference(repository=repository, revision=revision, folder=folder)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "  ",
        "org/model\0",
        "org/model@",
        "org//model",
        "@main",
        "-org/model",
        "org/mo--del",
        "org/mo del",
        "org/model@main/../../x",
        "hf://datasets/org/data",
        "gs://bucket/key",
        "https://example.org/org/model",
        "models:/name",
        "models:/name/1/../../x",
        "x" * 5000,
    ],
)
def test_what_is_no_reference_is_refused_with_a_reason(text: str) -> None:
    with pytest.raises(SourceError) as error:
        parse(text)
    assert error.value.what


def test_a_path_wins_only_when_it_exists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert isinstance(parse("org/model"), HubReference)
    (tmp_path / "org" / "model").mkdir(parents=True)
    assert parse("org/model") == LocalReference(path=Path("org/model"))
    assert parse("hf://org/model") == HubReference(repository="org/model")


@pytest.mark.parametrize("text", ["./org/model", "../org/model", "/org/model", "~/no/such/place"])
def test_an_explicit_path_is_never_looked_up_on_the_hub(text: str) -> None:
    with pytest.raises(SourceError, match="no such file"):
        parse(text)


def test_a_revision_given_beside_the_reference(tmp_path: Path) -> None:
    assert parse("org/model", revision="v1") == HubReference(repository="org/model", revision="v1")
    assert parse("org/model@v1", revision="v1") == HubReference(repository="org/model", revision="v1")
    with pytest.raises(SourceError, match="two revisions"):
        parse("org/model@v1", revision="v2")
    with pytest.raises(SourceError, match="no revision"):
        parse(str(tmp_path), revision="v1")


@pytest.mark.parametrize("name", ["..", "a/..", "a/b/c", "a--b/c", "a/.b", "a/b.", "ä/b", "", "a" * 200])
def test_names_no_repository_can_have(name: str) -> None:
    assert not is_repository(name)
