"""The HTML report in a real browser."""

from __future__ import annotations

import struct
from pathlib import Path

import browser
import pytest
from builders import reports

from ftsec_audit.report import html
from ftsec_audit.types import Report

pytestmark = pytest.mark.timeout(300)


def _page(report: Report, folder: Path) -> Path:
    page = folder / "report.html"
    page.write_text(html.render(report), encoding="utf-8")
    return page


@pytest.mark.parametrize("report", [reports.failing(), reports.hostile()], ids=["failing", "hostile"])
def test_it_opens_without_a_complaint_and_without_the_network(report: Report, tmp_path: Path) -> None:
    visit = browser.visit(_page(report, tmp_path), tmp_path)
    assert visit.console == ()
    assert "evil.example" not in visit.network_log
    assert "<footer><p>A pass means no known indicator was found" in visit.dom
    assert "<script" not in visit.dom
    assert "<img" not in visit.dom


def test_it_is_drawn_in_both_themes(tmp_path: Path) -> None:
    page = _page(reports.failing(), tmp_path)
    light, dark = (browser.screenshot(page, tmp_path, dark=dark) for dark in (False, True))
    for picture in (light, dark):
        assert struct.unpack(">II", picture[16:24]) == (1100, 1400)
        assert len(picture) > 50_000
    assert light != dark
