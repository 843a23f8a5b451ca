"""Settings files: where they are looked for, and what is wrong with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from ftsec_audit.errors import UsageError
from ftsec_audit.settings import Settings


def test_there_may_be_none(tmp_path: Path) -> None:
    assert Settings.discover(tmp_path) is None
    (tmp_path / "pyproject.toml").write_text("[tool.other]\nx = 1\n")
    assert Settings.discover(tmp_path) is None


def test_yaml_wins_over_pyproject(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[tool.ftsec-audit]\nfail-on = "low"\n')
    found = Settings.discover(tmp_path)
    assert found is not None
    assert found.values == {"fail_on": "low"}
    (tmp_path / "ftsec-audit.yaml").write_text("fail-on: medium\n")
    found = Settings.discover(tmp_path)
    assert found is not None
    assert found.values == {"fail_on": "medium"}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("ftsec-audit.yaml", "- a list\n"),
        ("ftsec-audit.yaml", "a: [\n"),
        ("ftsec-audit.yaml", "a: !!python/name:os.system\n"),
        ("pyproject.toml", "[tool.ftsec-audit\n"),
        ("pyproject.toml", '[tool]\nftsec-audit = "x"\n'),
    ],
)
def test_a_broken_file_is_a_usage_error(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match=name):
        Settings.discover(tmp_path)


def test_an_unknown_name_is_refused_with_the_closest_one(tmp_path: Path) -> None:
    (tmp_path / "ftsec-audit.yaml").write_text("fail_onn: low\n")
    found = Settings.discover(tmp_path)
    assert found is not None
    with pytest.raises(UsageError, match="did you mean fail-on"):
        found.checked(["fail_on", "profile"])


def test_a_file_knows_whether_it_lies_in_a_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ftsec-audit.yaml").write_text("profile: quick\n")
    (tmp_path / "model").mkdir()
    (tmp_path / "weights.bin").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    found = Settings.discover(Path.cwd())
    assert found is not None
    assert found.belongs_to(".")
    assert found.belongs_to("..")
    assert found.belongs_to("weights.bin")
    assert not found.belongs_to("model")
    assert not found.belongs_to("org/model")
