"""The scope guards hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from attacks_ref import safety
from attacks_ref.registry import ATTACKS, load
from ftsec_audit.errors import UsageError


def test_targets_are_a_closed_set() -> None:
    assert safety.target("marker") == "ftsec-marker"
    with pytest.raises(UsageError, match="no target named"):
        safety.target("anything else")


@pytest.mark.parametrize("escape", ["../x", "a/../../x", "/etc/x"])
def test_writes_stay_below_out(tmp_path: Path, escape: str) -> None:
    with pytest.raises(UsageError, match="outside"):
        safety.inside(tmp_path / "out", escape)


def test_writes_do_not_follow_a_link_out(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "link").symlink_to(tmp_path)
    with pytest.raises(UsageError, match="outside"):
        safety.inside(tmp_path / "out", "link", "x")


def test_an_output_folder_with_content_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("x")
    with pytest.raises(UsageError, match="not empty"):
        safety.fresh(tmp_path)


def test_a_foreign_folder_is_no_lab_base(tmp_path: Path) -> None:
    assert not safety.is_lab_base(tmp_path)
    with pytest.raises(UsageError, match="only on lab bases"):
        safety.require_lab_base(tmp_path, "A04")


def test_a_card_alone_does_not_make_a_lab_base(tmp_path: Path) -> None:
    (tmp_path / "lab.json").write_text("{}")
    assert not safety.is_lab_base(tmp_path)


def test_an_unknown_attack_names_the_known_ones() -> None:
    with pytest.raises(UsageError, match="embedding-rows"):
        load("nonsense")


@pytest.mark.parametrize("name", ATTACKS)
def test_every_registered_attack_loads_under_its_name(name: str) -> None:
    attack = load(name)
    assert attack.name == name
    assert attack.id.startswith("A")
