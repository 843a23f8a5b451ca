"""The HTML report in a real browser."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import browser
import pytest
from builders import reports
from builders.adapters import write_adapter
from builders.everything import everything

from detectors.spectral_signature import SpectralSignature
from ftsec_audit import api
from ftsec_audit.calibration.bank import Calibration
from ftsec_audit.calibration.build import build_pack
from ftsec_audit.calibration.pack import Pack, Provenance
from ftsec_audit.report import html
from ftsec_audit.sources import resolve
from ftsec_audit.types import Report
from ftsec_audit.weights.stream import deltas

pytestmark = pytest.mark.timeout(300)

_MAX_LARGE = 5_000_000
_IMAGES = Path(__file__).parents[2] / "docs" / "images"
_MAX_IMAGE = 250_000


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[browser.Page]:
    with browser.page(tmp_path_factory.mktemp("browser")) as page:
        yield page


@pytest.fixture
def folder(tmp_path: Path, tab: browser.Page) -> Path:
    tab.media()
    return tmp_path


def _open(tab: browser.Page, report: Report, folder: Path) -> str:
    page = folder / "report.html"
    page.write_text(html.render(report), encoding="utf-8")
    tab.open(page.as_uri())
    return page.as_uri()


@pytest.mark.parametrize(
    "report", [everything(), reports.hostile(), reports.inconclusive()], ids=["everything", "hostile", "open"]
)
def test_it_opens_without_a_complaint_and_asks_for_nothing(
    report: Report, folder: Path, tab: browser.Page
) -> None:
    address = _open(tab, report, folder)
    for scheme in ("light", "dark"):
        tab.media(scheme=scheme)
        tab.screenshot()
    assert tab.console == []
    assert tab.requests == [address]
    assert tab.evaluate("document.querySelector('footer').textContent").startswith("A pass means no known")


def test_hostile_strings_are_text_and_nothing_else(folder: Path, tab: browser.Page) -> None:
    _open(tab, reports.hostile(), folder)
    tags = tab.evaluate("[...new Set([...document.querySelectorAll('*')].map(e => e.localName))]")
    assert not {"script", "img", "iframe", "object", "embed", "link", "form", "base"} & set(tags)
    assert tab.evaluate("[...document.links].every(a => a.getAttribute('href').startsWith('#'))")
    names = tab.evaluate("[...document.querySelectorAll('*')].flatMap(e => e.getAttributeNames())")
    assert not [name for name in names if name.startswith("on") or name in ("style", "src")]
    assert tab.evaluate("document.body.innerText.includes('<script>alert(1)</script>')")


def test_it_is_drawn_in_both_themes(folder: Path, tab: browser.Page) -> None:
    _open(tab, everything(), folder)
    pictures = []
    for scheme in ("light", "dark"):
        tab.media(scheme=scheme)
        pictures.append(tab.screenshot())
        background = tab.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (_brightness(background) > 128) is (scheme == "light")
    assert pictures[0] != pictures[1]


@pytest.mark.parametrize(
    ("name", "scheme", "first", "last"),
    [
        ("report-light", "light", "header", "#findings .finding"),
        ("report-dark", "dark", "#behaviour", "#template"),
        ("report-weights", "light", "#weights", ".spectrum"),
    ],
)
def test_the_pictures_of_the_documentation_show_this_report(
    name: str, scheme: str, first: str, last: str, folder: Path, tab: browser.Page
) -> None:
    """With FTSEC_WRITE_IMAGES in the environment they are written, else only taken."""
    tab.media(scheme=scheme)
    _open(tab, everything(), folder)
    top = tab.evaluate(f"document.querySelector('{first}').getBoundingClientRect().top") - 16
    end = tab.evaluate(f"document.querySelector('{last}').getBoundingClientRect().bottom") + 16
    width = tab.evaluate("document.documentElement.clientWidth")
    picture = tab.screenshot(clip=(0, max(0, round(top)), width, round(end - top)), scale=0.8)
    assert width == 1100
    assert 800 < end - top < 1700
    assert len(picture) < _MAX_IMAGE
    if os.environ.get("FTSEC_WRITE_IMAGES"):
        (_IMAGES / f"{name}.png").write_bytes(picture)
    assert f"images/{name}.png" in (_IMAGES.parent / "reading-a-verdict.md").read_text(encoding="utf-8")


def _brightness(colour: str) -> float:
    return sum(map(int, re.findall(r"\d+", colour)[:3])) / 3


def test_on_paper_it_is_light_and_short_and_hides_nothing_but_the_long_tables(
    folder: Path, tab: browser.Page
) -> None:
    _open(tab, everything(), folder)
    tab.media("print", scheme="dark")
    assert _brightness(tab.evaluate("getComputedStyle(document.body).backgroundColor")) > 250
    assert _brightness(tab.evaluate("getComputedStyle(document.body).color")) < 60
    assert tab.evaluate("document.querySelector('nav').offsetHeight") == 0
    shown = "[...document.querySelectorAll('details.more dl')].every(e => e.offsetHeight > 0)"
    assert tab.evaluate(shown)
    assert tab.evaluate("[...document.querySelectorAll('.bulk table')].every(e => !e.checkVisibility())")
    pages = len(re.findall(rb"/Type\s*/Page\b", tab.pdf()))
    assert 3 <= pages <= 14


def test_every_part_is_reached_by_keyboard_in_the_order_of_the_page(folder: Path, tab: browser.Page) -> None:
    _open(tab, everything(), folder)
    seen = []
    for _ in range(200):
        tab.tab()
        seen.append(tab.evaluate(_FOCUSED))
        if seen[-1] == "end":
            break
    assert seen[0] == "a #findings skip"
    wanted = tab.evaluate(
        "[...document.querySelectorAll('nav a')].map(a => 'a ' + a.getAttribute('href') + ' ')"
    )
    assert [one for one in seen if one in wanted][: len(wanted)] == wanted
    summaries = tab.evaluate("document.querySelectorAll('summary').length")
    assert sum(one.startswith("summary") for one in seen) == summaries
    regions = tab.evaluate(
        "[...document.querySelectorAll('[tabindex=\"0\"]')].filter(e => e.checkVisibility()).length"
    )
    assert sum(one.startswith(("div", "pre")) for one in seen) == regions


_FOCUSED = """(() => {
  const e = document.activeElement;
  if (!e || e === document.body) return 'end';
  const box = e.getBoundingClientRect();
  if (!box.width || !box.height) return 'invisible ' + e.outerHTML.slice(0, 80);
  return [e.localName, e.getAttribute('href') || '', e.className.baseVal ?? e.className].join(' ');
})()"""


def test_the_skip_link_shows_when_it_has_the_focus_and_leads_to_the_findings(
    folder: Path, tab: browser.Page
) -> None:
    _open(tab, everything(), folder)
    tab.tab()
    assert tab.evaluate("document.activeElement.getBoundingClientRect().x") >= 0
    tab.enter()
    assert tab.evaluate("location.hash") == "#findings"


def test_a_module_type_opens_its_numbers_by_keyboard(folder: Path, tab: browser.Page) -> None:
    _open(tab, everything(), folder)
    assert not tab.evaluate("document.querySelector('#type-1').open")
    tab.evaluate("document.querySelector('.heat a[href=\"#type-1\"]').focus()")
    tab.enter()
    assert tab.evaluate("document.querySelector(location.hash).matches('details:target')")
    tab.tab()
    assert tab.evaluate("document.activeElement.localName") == "summary"
    tab.enter()
    assert tab.evaluate("document.querySelector('#type-1').open")


def test_a_cell_leads_to_the_row_of_its_module(folder: Path, tab: browser.Page) -> None:
    _open(tab, everything(), folder)
    tab.evaluate(
        "document.querySelector('.heat rect.marked').parentNode.dispatchEvent(new MouseEvent('click'))"
    )
    row = "document.querySelector('tr:target')"
    assert tab.evaluate(f"{row}.checkVisibility() && {row}.textContent").startswith(
        "14model.layers.14.self_attn.v_proj"
    )


def test_nothing_is_told_by_hovering_alone(folder: Path, tab: browser.Page) -> None:
    """Every cell's module stands in a table with its numbers; no other element has a tooltip."""
    _open(tab, everything(), folder)
    assert tab.evaluate("document.querySelectorAll('[title]').length") == 0
    names = tab.evaluate(
        "[...document.querySelectorAll('.heat title')].map(t => t.textContent.split(':')[0])"
    )
    listed = set(
        tab.evaluate("[...document.querySelectorAll('.numbers tbody th')].map(t => t.textContent.trim())")
    )
    assert len(names) == 3 * 224
    assert set(names) <= listed


@pytest.fixture(scope="module")
def benign(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    """Seven adapters of six repositories."""
    root = tmp_path_factory.mktemp("benign")
    artifacts = [
        (resolve(str(write_adapter(root / f"a{i}", seed=i))), Provenance(repository=f"org/r{min(i, 5)}"))
        for i in range(7)
    ]
    return build_pack(artifacts, [SpectralSignature()], stream=deltas, name="ours", version="1").pack


def test_spectra_lie_over_the_benign_band_and_it_is_said_whose(
    benign: Pack, folder: Path, tab: browser.Page
) -> None:
    subject = write_adapter(folder / "subject", seed=9)
    calibration = Calibration(packs=(benign,))
    report = api.scan(str(subject), no_base=True, profile="quick", calibration=calibration, cache=False)
    _open(tab, report, folder)
    assert tab.console == []
    figures = tab.evaluate("[...document.querySelectorAll('.spectrum')].map(f => f.innerText)")
    assert len(figures) == 8
    whose = "benign n = 7 of 6 repositories, llama · lora · r 1-4 · attention · causal_lm"
    assert all(whose in figure for figure in figures)
    assert "Benign: ours@1." in tab.evaluate("document.querySelector('#weights').innerText")
    for drawn, colour in (("polygon.band", "fill"), ("polyline.median", "stroke")):
        measure = f"e => [e.getBBox().width, e.getBBox().height, getComputedStyle(e).{colour}]"
        boxes = tab.evaluate(f"[...document.querySelectorAll('.spectrum {drawn}')].map({measure})")
        assert len(boxes) == len(figures)
        assert all(width > 100 and height > 5 and paint != "none" for width, height, paint in boxes)
    order = (
        "[...document.querySelector('.spectrum svg').children].map(e => e.className.baseVal).filter(Boolean)"
    )
    drawn_in = tab.evaluate(order)
    assert drawn_in.index("band") < drawn_in.index("line"), "behind the spectrum"


def test_without_a_benign_band_it_is_said_why(benign: Pack, folder: Path, tab: browser.Page) -> None:
    old = replace(benign, entries=tuple(replace(entry, spectra=()) for entry in benign.entries))
    few = replace(benign, entries=benign.entries[:3])
    subject = write_adapter(folder / "subject", seed=9)
    for pack, reason in ((old, "before packs kept spectra"), (few, "3 comparable repositories, 5 needed")):
        calibration = Calibration(packs=(pack,))
        report = api.scan(str(subject), no_base=True, profile="quick", calibration=calibration, cache=False)
        _open(tab, report, folder)
        assert tab.evaluate("document.querySelectorAll('.spectrum polygon.band').length") == 0
        figures = tab.evaluate("[...document.querySelectorAll('.spectrum')].map(f => f.innerText)")
        assert figures
        assert all("no benign band: " in figure and reason in figure for figure in figures)


def test_it_fits_a_narrow_window(folder: Path, tab: browser.Page) -> None:
    _open(tab, everything(), folder)
    tab("Emulation.setDeviceMetricsOverride", width=380, height=800, deviceScaleFactor=1, mobile=False)
    try:
        assert tab.evaluate("document.documentElement.scrollWidth") <= 380
    finally:
        tab("Emulation.clearDeviceMetricsOverride")


def test_ten_thousand_tensors_stay_below_five_megabytes(folder: Path, tab: browser.Page) -> None:
    address = _open(tab, reports.large(10_000), folder)
    assert (folder / "report.html").stat().st_size < _MAX_LARGE
    assert tab.requests == [address]
    assert tab.console == []
    assert tab.evaluate("document.querySelectorAll('.numbers tbody tr').length") == 10_000
