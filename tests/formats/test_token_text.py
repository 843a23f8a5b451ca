"""What tokens look like once the spelling of their vocabulary is undone."""

from __future__ import annotations

import pytest

from ftsec_audit.formats.token_text import is_byte_level, language, plain, script


@pytest.mark.parametrize(
    ("token", "byte_level", "text"),
    [
        ("Ġcat", True, " cat"),
        ("cat", True, "cat"),
        ("ÐºÐ¾ÑĤ", True, "кот"),
        ("éĻ", True, "\ufffd"),
        ("<|endoftext|>", True, "<|endoftext|>"),
        ("日本", True, "日本"),
        ("▁cat", False, " cat"),
        ("é", False, "é"),
        ("<0x0A>", False, "\n"),
        ("<0xE2>", False, "\ufffd"),
        ("", True, ""),
        ("", False, ""),
    ],
)
def test_spellings_are_undone(token, byte_level, text):
    assert plain(token, byte_level=byte_level) == text


def test_a_vocabulary_is_byte_level_where_it_spells_spaces_so():
    assert is_byte_level(["a", "Ġa"])
    assert not is_byte_level(["a", "▁a", "aĠ"])
    assert not is_byte_level([])


@pytest.mark.parametrize(
    ("text", "expected", "code"),
    [
        (" cat", "LATIN", ""),
        ("кот", "CYRILLIC", ""),
        ("γάτα", "GREEK", "el"),
        ("고양이", "HANGUL", "ko"),
        ("猫", "CJK", ""),
        ("aб", "LATIN", ""),
        ("123 !", "", ""),
        ("\ue000", "", ""),
        ("\ufffd", "", ""),
    ],
)
def test_the_script_is_that_of_most_letters(text, expected, code):
    assert (script(text), language(text)) == (expected, code)
