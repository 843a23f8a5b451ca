from __future__ import annotations

import re

import pytest
from builders import reports
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from ftsec_audit.report import markdown
from ftsec_audit.report.escape import visible

_READER = MarkdownIt("commonmark").enable(["table", "strikethrough"])


def tokens(text: str) -> list[Token]:
    flat = []
    for token in _READER.parse(text):
        flat += [token, *(token.children or [])]
    return flat


def read(text: str) -> str:
    """What a reader sees of one paragraph."""
    return "".join(
        token.content for token in tokens(text) if token.type in ("text", "code_inline", "text_special")
    )


def test_a_report_reads_well() -> None:
    text = markdown.render(reports.failing())
    assert text.startswith("## ❌ ftsec-audit: FAIL\n")
    assert "### CRITICAL · FTA301 few-embedding-rows-changed" in text
    assert "**What to do:** Do not deploy." in text
    kinds = [token.type for token in tokens(text)]
    assert kinds.count("table_open") == 5
    cells = [token.content for token in tokens(text) if token.type == "inline"]
    assert "sigma\\_1\\_share = 0.914" in cells


def test_hostile_strings_make_no_markup() -> None:
    text = markdown.render(reports.hostile())
    found = {token.type for token in tokens(text)}
    assert not found & {"link_open", "image", "html_inline", "s_open", "em_open", "fence", "code_block", "hr"}
    blocks = {token.content.strip() for token in tokens(text) if token.type == "html_block"}
    assert blocks <= {"<details><summary>The other 2 answers</summary>", "</details>"}
    assert sum(token.type == "heading_open" for token in tokens(text)) == 4


def test_a_table_row_stays_one_row() -> None:
    lines = [line for line in markdown.render(reports.hostile()).splitlines() if line.startswith("| ")]
    columns = {len(re.findall(r"(?<!\\)\|", line)) for line in lines}
    assert columns <= {3, 4, 5}


@pytest.mark.parametrize("text", ["@octocat", "owner/repo#12", "#12", "see @a/b and #1"])
def test_nobody_is_mentioned(text: str) -> None:
    assert not re.search(r"[@#]\w", read(markdown.plain(text)))


@pytest.mark.parametrize("text", ["https://evil.example", "WWW.evil.example", "a@evil.example", "http://x"])
def test_no_link_is_made_of_bare_text(text: str) -> None:
    source = markdown.plain(text)
    assert not re.search(r"https?://|www\.|@\w", source, re.IGNORECASE)
    assert read(source).replace("\u200b", "") == text


@given(st.text(alphabet=st.sampled_from("ab1 `*_~[](){}<>#+-.!|@:\\&$=\n\"'/"), max_size=30))
def test_any_text_is_read_as_it_is(text: str) -> None:
    shown = visible(text).strip()
    assert read(markdown.plain(shown)).replace("\u200b", "") == shown
    assert {token.type for token in tokens(markdown.plain(shown))} <= {
        *("paragraph_open", "paragraph_close", "inline", "text", "text_special"),
    }


@given(st.text(alphabet=st.sampled_from("ab` \\<&*"), min_size=1, max_size=20))
def test_any_text_can_be_code(text: str) -> None:
    spans = [token for token in tokens("x " + markdown.code(text)) if token.type == "code_inline"]
    assert len(spans) == 1
    assert spans[0].content.strip() == visible(text).strip()


def test_long_strings_and_lists_are_cut() -> None:
    text = markdown.render(reports.large(2_000))
    assert len(text) < 65_536
    assert "… and 1,990 more" in text
