"""FTA441: what it cannot read it says, and a gap hides no finding. Its findings are held by the corpus."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from detectors.tokenizer_tampering import TokenizerTampering
from ftsec_audit.types import Outcome
from tests.builders.audits import audit, finding

SOUND = json.dumps({"model": {"vocab": {"hello": 0, "world": 1}}})
SWAPS = json.dumps({"model": {"vocab": {"hello": 0, "world": 0}}})


def outcome(folder: Path, files: dict[str, str]) -> tuple[Outcome, list[tuple[str, bool]]]:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    result = audit(TokenizerTampering(), folder)
    gaps = [(gap.what, gap.incomplete) for gap in result.not_looked_at]
    return finding(result, "FTA441").outcome, gaps


@pytest.mark.parametrize("name", ["tokenizer.model", "tekken.json", "spiece.model", "x.tiktoken"])
def test_a_tokenizer_in_another_form_leaves_the_question_open(tmp_path: Path, name: str) -> None:
    assert outcome(tmp_path, {name: "x"}) == (Outcome.NOT_SUPPORTED, [(name, True)])


def test_beside_a_tokenizer_json_it_is_only_listed(tmp_path: Path) -> None:
    files = {"tokenizer.json": SOUND, "tokenizer.model": "x"}
    assert outcome(tmp_path, files) == (Outcome.NOT_DETECTED, [("tokenizer.model", False)])


def test_the_uppermost_tokenizer_is_judged_and_the_others_listed(tmp_path: Path) -> None:
    files = {"a/tokenizer.json": SWAPS, "tokenizer.json": SOUND}
    assert outcome(tmp_path, files) == (Outcome.NOT_DETECTED, [("a/tokenizer.json", False)])


@pytest.mark.parametrize("broken", ["special_tokens_map.json", "tokenizer_config.json"])
def test_an_unreadable_neighbour_hides_no_finding(tmp_path: Path, broken: str) -> None:
    files = {"tokenizer.json": SWAPS, broken: "{"}
    assert outcome(tmp_path, files) == (Outcome.DETECTED, [(broken, True)])


@pytest.mark.parametrize("broken", ["special_tokens_map.json", "tokenizer.json"])
def test_what_is_unreadable_leaves_the_question_open(tmp_path: Path, broken: str) -> None:
    found, gaps = outcome(tmp_path, {"tokenizer.json": SOUND} | {broken: "{"})
    assert found is Outcome.NOT_SUPPORTED
    assert [incomplete for _, incomplete in gaps] == [True]


def test_the_older_form_is_read_too(tmp_path: Path) -> None:
    sound = {"vocab.json": '{"a": 0, "b": 1, "ab": 2}', "merges.txt": "#version: 0.2\na b\n"}
    assert outcome(tmp_path / "sound", sound) == (Outcome.NOT_DETECTED, [])
    taken = sound | {"added_tokens.json": '{"new": 1}'}
    assert outcome(tmp_path / "taken", taken) == (Outcome.DETECTED, [])
    assert outcome(tmp_path / "words", {"vocab.txt": "[PAD]\nhello\nworld\n"}) == (Outcome.NOT_DETECTED, [])


def test_the_older_form_is_compared_with_the_base(tmp_path: Path) -> None:
    for name, merges in (("base", "a b\nb c"), ("subject", "b c\na b")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "vocab.json").write_text('{"a": 0, "b": 1, "c": 2, "ab": 3, "bc": 4}')
        (tmp_path / name / "merges.txt").write_text(merges)
    found = finding(audit(TokenizerTampering(), tmp_path / "subject", tmp_path / "base"), "FTA441")
    assert "merges" in found.summary


def test_without_any_tokenizer_there_is_no_question(tmp_path: Path) -> None:
    assert outcome(tmp_path, {"config.json": "{}"}) == (Outcome.NOT_APPLICABLE, [])
