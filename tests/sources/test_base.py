from __future__ import annotations

import json
from pathlib import Path

import pytest
from hub_server import HubServer

from ftsec_audit.artifact import Artifact
from ftsec_audit.errors import SourceError
from ftsec_audit.sources import resolve
from ftsec_audit.sources.base import resolve_base


def adapter(folder: Path, **config: object) -> Artifact:
    """A LoRA adapter directory with this configuration."""
    folder.mkdir(exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 8, **config}))
    return resolve(str(folder))


def with_card(folder: Path, front_matter: str) -> Artifact:
    folder.mkdir(exist_ok=True)
    (folder / "README.md").write_text(f"---\n{front_matter}\n---\n# A model\n")
    return resolve(str(folder))


def test_the_declared_base_is_fetched_from_the_hub(hub: HubServer, tmp_path: Path) -> None:
    repository = hub.add("org/base", {"config.json": b"{}"})
    base, reason = resolve_base(adapter(tmp_path / "a", base_model_name_or_path="org/base"), None, False)
    assert base is not None
    assert (base.reference, base.resolved) == ("org/base", f"org/base@{repository.at('main').sha}")
    assert reason == ""


def test_the_declared_revision_of_the_base_is_the_one_taken(hub: HubServer, tmp_path: Path) -> None:
    repository = hub.add("org/base", {"config.json": b"{}"})
    first = repository.at("main").sha
    repository.commit({"config.json": b'{"later": true}'})
    subject = adapter(tmp_path / "a", base_model_name_or_path="org/base", revision=first)
    base, _ = resolve_base(subject, None, False)
    assert base is not None
    assert base.resolved == f"org/base@{first}"


def test_the_model_card_is_asked_when_no_configuration_names_a_base(hub: HubServer, tmp_path: Path) -> None:
    hub.add("org/base", {"config.json": b"{}"})
    base, _ = resolve_base(with_card(tmp_path / "m", "base_model: org/base"), None, False)
    assert base is not None
    assert base.reference == "org/base"


def test_a_card_that_names_several_bases_names_none(hub: HubServer, tmp_path: Path) -> None:
    base, reason = resolve_base(with_card(tmp_path / "m", "base_model: [org/a, org/b]"), None, False)
    assert base is None
    assert "names 2 bases ('org/a', 'org/b')" in reason
    assert len(hub.log) == 0


def test_no_base_wins_over_everything(hub: HubServer, tmp_path: Path) -> None:
    subject = adapter(tmp_path / "a", base_model_name_or_path="org/base")
    assert resolve_base(subject, "org/base", True) == (None, "an audit without a base was asked for")
    assert len(hub.log) == 0


def test_an_explicit_base_wins_over_the_declared_one_and_may_be_a_path(
    hub: HubServer, tmp_path: Path
) -> None:
    (tmp_path / "base").mkdir()
    subject = adapter(tmp_path / "a", base_model_name_or_path="org/other")
    base, reason = resolve_base(subject, str(tmp_path / "base"), False)
    assert base is not None
    assert (base.resolved, reason) == (str(tmp_path / "base"), "")
    assert len(hub.log) == 0


def test_an_explicit_base_that_cannot_be_had_is_an_error(hub: HubServer, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no such repository"):
        resolve_base(adapter(tmp_path / "a"), "org/missing", False)


@pytest.mark.parametrize(
    ("declared", "words"),
    [
        ("C:\\Users\\me\\llama", "a Windows path"),
        ("D:/models/llama", "a Windows path"),
        ("..\\llama", "a Windows path"),
        ("/home/me/llama", "a path on another machine"),
        ("../llama", "a path on another machine"),
        ("~/llama", "a path on another machine"),
        ("https://huggingface.co/org/base", "an address"),
        ("file:///etc/passwd", "an address"),
        ("models/llama/7b/hf", "no Hub repository can be called"),
        ("org/ba\nse", "no Hub repository can be called"),
        ("x" * 5000, "no Hub repository can be called"),
    ],
)
def test_a_declared_base_that_is_no_repository_is_a_reason(
    hub: HubServer, tmp_path: Path, declared: str, words: str
) -> None:
    base, reason = resolve_base(adapter(tmp_path / "a", base_model_name_or_path=declared), None, False)
    assert base is None
    assert words in reason
    assert "\n" not in reason
    assert len(reason) < 400
    assert len(hub.log) == 0


def test_a_declared_base_is_never_looked_up_on_disk(hub: HubServer, tmp_path: Path) -> None:
    (tmp_path / "org" / "base").mkdir(parents=True)  # the working directory holds what the artifact names
    base, reason = resolve_base(adapter(tmp_path / "a", base_model_name_or_path="org/base"), None, False)
    assert base is None
    assert "no such repository on the Hub" in reason


def test_nothing_declared(hub: HubServer, tmp_path: Path) -> None:
    base, reason = resolve_base(adapter(tmp_path / "a"), None, False)
    assert base is None
    assert reason.startswith("it does not declare")


@pytest.mark.parametrize("revision", ["../../refs", "a b", "/etc", "x" * 300])
def test_a_hostile_revision_is_a_reason(hub: HubServer, tmp_path: Path, revision: str) -> None:
    subject = adapter(tmp_path / "a", base_model_name_or_path="org/base", revision=revision)
    base, reason = resolve_base(subject, None, False)
    assert base is None
    assert "which no revision can be called" in reason


def test_a_model_that_declares_itself(hub: HubServer) -> None:
    config = json.dumps({"peft_type": "LORA", "base_model_name_or_path": "org/a"}).encode()
    hub.add("org/a", {"adapter_config.json": config})
    base, reason = resolve_base(resolve("org/a"), None, False)
    assert base is None
    assert "declares itself" in reason


def test_a_gated_or_unreachable_declared_base_is_a_reason(
    hub: HubServer, tmp_path: Path, waits: list[float]
) -> None:
    subject = adapter(tmp_path / "a", base_model_name_or_path="org/base")
    hub.add("org/base", {"config.json": b"{}"}, private=True)
    assert "private" in resolve_base(subject, None, False)[1]
    assert "this audit is offline" in resolve_base(subject, None, False, offline=True)[1]
    hub.stop()
    assert "cannot reach" in resolve_base(subject, None, False)[1]
    assert len(waits) > 0
