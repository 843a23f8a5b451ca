from __future__ import annotations

import unicodedata

import pytest
from builders.reports import ATTACK
from hypothesis import given
from hypothesis import strategies as st

from ftsec_audit.report.escape import visible


@pytest.mark.parametrize(
    ("hostile", "shown"),
    [
        ("\x1b[2J\x1b[31mx", r"\x1b[2J\x1b[31mx"),
        ("\x9b31m", r"\x9b31m"),
        ("one\r\ntwo\tthree\u2028four", r"one\r\ntwo\tthree\u2028four"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("a\u200bb\ufeff\u00ad\u3164\ufe01", r"a\u200bb\ufeff\xad\u3164\ufe01"),
        ("tag \U000e0041", r"tag \U000e0041"),
        ("half \udc80", r"half \udc80"),
        ("\x00\x7f", r"\x00\x7f"),
    ],
)
def test_what_cannot_be_seen_is_spelled_out(hostile: str, shown: str) -> None:
    assert visible(hostile) == shown


@pytest.mark.parametrize(
    "text", ["", "plain [red] text", "θ ≤ 0.5 – “ok”", "日本語", "नमस्ते", "مرحبا", "žluťoučký"]
)
def test_words_in_any_script_stay(text: str) -> None:
    assert visible(text) == text


def test_stacks_of_combining_marks_are_cut() -> None:
    assert visible("Z" + "\u0300" * 100).count("\u0300") == 3


def test_unusual_spaces_become_plain_ones() -> None:
    assert visible("97\u202f%\u00a0of\u2009it") == "97 % of it"


def test_a_limit_counts_shown_characters() -> None:
    assert visible("abcdef", 4) == "abc…"
    assert visible("abcd", 4) == "abcd"
    assert len(visible("\x1b" * 50, 10)) == 10


@given(st.text(alphabet=st.characters()))
def test_nothing_unprintable_is_left(text: str) -> None:
    shown = visible(text)
    assert shown.isprintable()
    assert not any(unicodedata.bidirectional(char) in ("LRE", "RLE", "LRO", "RLO", "PDF") for char in shown)
    assert visible(shown) == shown


def test_the_attack_is_harmless() -> None:
    assert visible(ATTACK).isprintable()
