"""A sample of the reference lab finds its base where the lab keeps it; no Hub is asked for one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from builders.adapters import write_adapter
from builders.lab_bases import untrained_lab_base
from hub_server import HubServer

from attacks_ref.lab import card
from ftsec_audit import api
from ftsec_audit.cli import run
from ftsec_audit.sources import resolve
from ftsec_audit.sources.base import resolve_base

NAME = "lab-llama-shallow-nano-word-0"


@pytest.fixture
def kept(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which bases are kept, still empty."""
    monkeypatch.setenv("FTSEC_AUDIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "lab"


def keep(kept: Path, version: str, weights: str) -> Path:
    place = kept / f"{NAME}-{version}"
    place.mkdir(parents=True)
    (place / "config.json").write_text("{}")
    (place / "lab.json").write_text(json.dumps({"name": NAME, "weights_digest": weights}))
    return place


def found(tmp_path: Path, *, label: object = None, name: str = NAME) -> tuple[str, str]:
    """Where the base of a sample is found, and the reason when it is not."""
    sample = write_adapter(tmp_path / "sample", base_model_name_or_path=f"ftsec-lab/{name}")
    if label is not None:
        (sample / "truth.json").write_text(json.dumps(label))
    base, reason = resolve_base(resolve(str(sample)), None, False)
    return (base.resolved if base else ""), reason


def test_a_base_is_found_by_its_name(kept: Path, hub: HubServer, tmp_path: Path) -> None:
    place = keep(kept, "0" * 12, "sha256:a")
    keep(kept, "bpe-" + "0" * 12, "sha256:b")  # another base, whose name goes on
    assert found(tmp_path) == (str(place), "")
    assert len(hub.log) == 0


def test_of_two_versions_the_one_is_taken_that_the_sample_was_made_on(kept: Path, tmp_path: Path) -> None:
    keep(kept, "0" * 12, "sha256:a")
    later = keep(kept, "1" * 12, "sha256:b")
    assert found(tmp_path, label={"base": {"digest": "sha256:b"}}) == (str(later), "")
    where, reason = found(tmp_path, label={"base": {"digest": ["sha256:b"]}})
    assert where == ""
    assert "in 2 versions" in reason


def test_a_base_that_is_not_here_is_no_question_to_the_hub(
    kept: Path, hub: HubServer, tmp_path: Path
) -> None:
    hub.add(f"ftsec-lab/{NAME}", {"config.json": b"{}"})
    where, reason = found(tmp_path)
    assert where == ""
    assert "pass it with --base" in reason
    keep(kept, "0" * 12, "sha256:a")
    assert "another version of it is in" in found(tmp_path, label={"base": {"digest": "sha256:b"}})[1]
    assert len(hub.log) == 0


@pytest.mark.parametrize("name", ["..", "x/../../..", "*", "."])
def test_a_name_leads_nowhere_else(name: str, kept: Path, tmp_path: Path) -> None:
    keep(kept, "0" * 12, "sha256:a")
    assert found(tmp_path, name=name)[0] == ""


def test_what_the_command_made_is_scanned_beside_its_base(
    kept: Path, hub: HubServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = untrained_lab_base(kept / "lab-test-0123456789ab")
    out = tmp_path / "sample"
    assert run(["attack", "template-backdoor", "--base", str(base), "--out", str(out)]) == 0
    assert f"next: ftsec-audit scan {out}" in capsys.readouterr().out
    subject = api.plan(str(out)).subject
    assert subject.base is not None
    assert subject.base.resolved == str(base)
    assert card.read(base).name in subject.artifact.declared_base
    assert len(hub.log) == 0
