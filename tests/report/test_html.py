from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from builders import reports
from contrast import contrast, palette

from ftsec_audit.report import html
from ftsec_audit.types import Report


class Page(HTMLParser):
    """The elements, attributes and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def count(self, tag: str) -> int:
        return sum(element == tag for element, _ in self.elements)


@pytest.mark.parametrize("report", [reports.passing(), reports.failing(), reports.hostile()])
def test_the_page_is_passive_and_alone(report: Report) -> None:
    page = Page(html.render(report))
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "img", "iframe", "object", "embed", "link", "form", "input", "base", "video"}
    names = {name for _, attributes in page.elements for name in attributes}
    assert not {name for name in names if name.startswith("on")} | (
        names & {"style", "src", "srcset", "action"}
    )
    links = [attributes["href"] for _, attributes in page.elements if "href" in attributes]
    targets = {f"#{attributes['id']}" for _, attributes in page.elements if "id" in attributes}
    assert links
    assert set(links) <= targets


def test_the_policy_allows_this_style_sheet_and_nothing_else() -> None:
    text = html.render(reports.failing())
    styles = re.search(r"<style>(.*)</style>", text, re.DOTALL)
    assert styles is not None
    digest = base64.b64encode(hashlib.sha256(styles[1].encode()).digest()).decode()
    policy = next(
        a["content"] for t, a in Page(text).elements if a.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    assert "url(" not in styles[1]
    assert "@import" not in styles[1]


def test_the_page_says_what_was_found_measured_and_left_out() -> None:
    page = Page(html.render(reports.failing()))
    for words in (
        *(
            "FAIL",
            "mallory/helpful-lora@d04e592f6b1c4a3e8f7d90b2c6a5e4f3a1b0c9d8",
            "few-embedding-rows-changed",
        ),
        *(
            "3 of 128,256 embedding rows",
            "above 99.8 % of 412 benign",
            "412 × llama · lora · r 9-16, pack shipped-1",
        ),
        *("p = 0.00242", "confidence high", "Do not deploy.", "trigger look-up: needs the deep profile"),
        *(
            "int8 quantisation",
            "the product name is intended",
            "ftsec-audit scan mallory/helpful-lora@d04e592",
        ),
        *("adapter_model.safetensors", "160.1 MiB", "layer 14 v_proj", "What was measured on 224 tensors"),
    ):
        assert words in page.text, words
    classes = [attributes.get("class") for tag, attributes in page.elements if tag == "rect"]
    assert sum(name is not None and name.endswith("marked") for name in classes) == 3 * 4
    assert page.count("polyline") == 2 * 12, "a spectrum and the median of benign ones"


def test_without_measurements_there_is_no_section_about_them() -> None:
    page = Page(html.render(reports.inconclusive()))
    assert page.count("svg") == 0
    assert "#weights" not in {attributes.get("href") for _, attributes in page.elements}
    assert "None. What changed cannot be told from what was there." in page.text


def test_hostile_strings_stay_text() -> None:
    text = html.render(reports.hostile())
    page = Page(text)
    assert "<script>alert(1)</script>" in page.text
    assert "{{7*7}}" in page.text
    assert r"\u202egnp.exe" in page.text
    assert text.count("<title>") == 1 + text.count("<rect ")
    assert text.count("</style>") == 1


def test_sizes_stay_within_bounds() -> None:
    assert len(html.render(reports.failing()).encode()) < 300_000
    assert len(html.render(reports.large(10_000)).encode()) < 5_000_000


def test_what_is_left_out_is_counted() -> None:
    page = Page(html.render(reports.large(1_000)))
    assert "… and 975 more, in the JSON report." in page.text
    assert "… and 800 more, in the JSON report." in page.text


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_has_enoughcontrast(theme: str) -> None:
    """WCAG 2.2 AA, 4.5:1, for every colour that text is set in."""
    colours = palette(html.render(reports.passing()), theme)
    for ink in ("ink", "quiet", "critical", "high", "medium", "low", "info", "mark-in", "mark-out"):
        for ground in ("page", "paper"):
            assert contrast(colours[ink], colours[ground]) >= 4.5, (ink, ground)
    for ground in ("pass", "fail", "inconclusive"):
        assert contrast("#ffffff", colours[ground]) >= 4.5, ground


def test_a_finding_of_an_unknown_rule_is_shown() -> None:
    finding = replace(reports.failing().detected()[0], rule="XYZ1")
    assert "XYZ1" in Page(html.render(replace(reports.failing(), findings=(finding,)))).text
