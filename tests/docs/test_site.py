"""The documentation builds without a warning, is complete, and asks nothing of the network."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import browser
import pytest

from ftsec_audit import api

_ROOT = Path(__file__).parents[2]
_LOADING = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}
_REMOTE = re.compile(r"(?:https?:)?//", re.IGNORECASE)
_REMOTE_STYLE = re.compile(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//", re.IGNORECASE)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("docs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(out)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=_ROOT, env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


class _Loads(HTMLParser):
    """What a page makes a browser fetch, links that are only followed by hand aside."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        if tag == "link" and attributes.get("rel") in ("canonical", "next", "prev"):
            return
        if address := attributes.get(_LOADING.get(tag, "")):
            self.addresses.append(address)


def test_no_page_loads_anything_from_the_network(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > len(api.rules())
    for page in pages:
        text = page.read_text(encoding="utf-8")
        addresses = _Loads(text).addresses
        assert any(address.endswith(".css") for address in addresses)
        assert [address for address in addresses if _REMOTE.match(address)] == [], page
        assert not _REMOTE_STYLE.search(text), page
    for style in site.rglob("*.css"):
        assert not _REMOTE_STYLE.search(style.read_text(encoding="utf-8")), style


def test_every_rule_has_its_page(site: Path) -> None:
    index = (site / "rules" / "index.html").read_text(encoding="utf-8")
    for rule in api.rules():
        page = (site / "rules" / f"{rule.id}.html").read_text(encoding="utf-8")
        assert rule.name in page
        assert f'href="{rule.id}.html"' in index


def test_what_a_docstring_says_is_shown_as_it_is_written(site: Path) -> None:
    text = _text((site / "rules" / "FTA501.html").read_text(encoding="utf-8"))
    assert "KL(ft‖base) as the ranking" in text
    assert "lower 99 % bound of at least least_rate" in text


def test_the_commands_and_the_measured_tables_are_there(site: Path) -> None:
    assert "--fail-on" in (site / "commands.html").read_text(encoding="utf-8")
    navigation = (site / "index.html").read_text(encoding="utf-8")
    for page in (_ROOT / "docs").glob("*.md"):
        assert f'href="{page.stem}.html"' in navigation or page.stem == "index", page


def _text(page: str) -> str:
    return " ".join(re.sub(r"<[^>]+>", "", page).replace("&lt;", "<").split())


def test_a_browser_asks_for_nothing_outside_of_the_site(site: Path, tmp_path: Path) -> None:
    with browser.page(tmp_path) as tab:
        for page in ("index.html", "rules/FTA201.html"):
            tab.open((site / page).as_uri())
            tab.screenshot()
            assert [one for one in tab.requests if not one.startswith(("file:", "data:"))] == []
            assert tab.console == []
