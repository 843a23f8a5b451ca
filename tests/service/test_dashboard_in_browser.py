"""The dashboard in a real browser, served by a real server."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn
from builders.services import HUB_SECRET, TOKEN, fill, key
from visitor import Visitor, visiting

from ftsec_audit.batch.index import Index
from ftsec_audit.batch.store import Store
from ftsec_audit.cli.serve import _listen
from ftsec_audit.service import app
from ftsec_audit.service.credentials import Credentials
from ftsec_audit.service.queue import Queue
from ftsec_audit.service.state import Service

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Service]]:
    folder = tmp_path_factory.mktemp("served")
    store = Store(str(folder / "store"))
    fill(store)
    index = Index(f"sqlite:///{folder / 'index.sqlite'}")
    index.sync(store)
    service = Service(
        store=store,
        index=index,
        queue=Queue(f"sqlite:///{folder / 'queue.sqlite'}"),
        credentials=Credentials(TOKEN),
        hub_secret=HUB_SECRET,
        allow_scan=True,
    )
    listener = _listen("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(app.create(service), log_level="warning"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}", service
    server.should_exit = True
    thread.join(20)


@pytest.fixture
def browser(served: tuple[str, Service], tmp_path: Path) -> Iterator[Visitor]:
    """Afterwards: nothing ran, nothing was complained of, and nothing was asked of any other server."""
    with visiting(tmp_path) as opened:
        yield opened
        assert opened.console == []
        own = (served[0] + "/", "data:")  # the browser draws some of its own controls from data
        assert [url for url in opened.requests if not url.startswith(own)] == []


def sign_in(browser: Visitor, address: str, path: str = "/") -> None:
    browser.goto(address + path)
    browser.fill("input[name=token]", TOKEN)
    browser.click("form.login button")
    assert browser.url == address + path


def test_the_door_is_closed_until_the_token_is_shown(served: tuple[str, Service], browser: Visitor) -> None:
    address, _ = served
    for path in ("/", "/queue", f"/reports/{key(1)}", f"/reports/{key(1)}/document"):
        browser.goto(address + path)
        assert browser.url.startswith(f"{address}/login?next=")
        assert "acme" not in browser.text()
    browser.fill("input[name=token]", "not the token")
    browser.enter()
    assert "This is not the token." in browser.text()
    sign_in(browser, address, "/?verdict=fail")
    assert "acme/bot" in browser.text()
    browser.click("header form button")
    browser.goto(address + "/")
    assert browser.url.startswith(f"{address}/login")


def test_results_are_listed_filtered_and_opened(served: tuple[str, Service], browser: Visitor) -> None:
    address, service = served
    sign_in(browser, address)
    assert browser.evaluate("document.querySelectorAll('tbody tr').length") == 5
    browser.click("a.tile.fail")
    assert browser.evaluate("document.querySelectorAll('tbody tr').length") == 2
    browser.fill("input[name=text]", "acme/bot")
    browser.enter()
    assert "verdict=fail" in browser.url
    assert browser.evaluate("document.querySelectorAll('tbody tr').length") == 1
    browser.click("td.artifact a")
    assert browser.url == f"{address}/reports/{key(1)}"
    assert "few-embedding-rows-changed" in browser.in_frame("document.body.innerText")
    browser.click(".crumbs a:last-of-type")
    assert "−FTA301" in browser.text("tbody")
    assert browser.evaluate("document.querySelectorAll('.verdicts li').length") == 2
    browser.goto(address + "/queue")
    browser.fill("textarea", "org/model@main")
    browser.click("form.scan button")
    assert "hf://org/model@main" in browser.text("tbody")
    assert [item.origin for item in service.queue.recent()] == ["api"]


def test_everything_can_be_reached_by_keyboard(served: tuple[str, Service], browser: Visitor) -> None:
    address, _ = served
    browser.goto(address + "/")
    assert browser.evaluate("document.activeElement.name") == "token"
    browser.fill("input[name=token]", TOKEN)
    browser.enter()
    seen = []
    for _ in range(30):
        browser.tab()
        seen.append(
            browser.evaluate(
                "(() => { const e = document.activeElement, s = getComputedStyle(e);"
                " return [e.name || e.innerText, e === document.body ? 'left the page' : s.outlineStyle] })()"
            )
        )
    names = [name for name, _ in seen]
    assert names[0] == "Skip to the content"
    for wanted in ("Queue", "Sign out", "text", "verdict", "rule", "order", "Filter", "history"):
        assert any(name.strip() == wanted for name in names), wanted
    assert [name for name, style in seen if style == "none"] == []


def test_hostile_names_and_findings_do_nothing(served: tuple[str, Service], browser: Visitor) -> None:
    """That nothing ran is asserted by the fixture."""
    address, service = served
    service.queue.put(["hf://<script>alert(7)</script>"], "hub")
    service.queue.failed(service.queue.take(9)[-1], "<img src=https://evil.example/p.png onerror=alert(6)>")
    sign_in(browser, address)
    browser.goto(f"{address}/?text=%3Cimg%20src=x%20onerror=alert(5)%3E")
    history = "document.querySelector('a[href*=\"alert%281%29\"]').href"
    browser.goto(f"{address}/?text=evil.example")
    for path in (
        browser.evaluate(history).removeprefix(address),
        "/?verdict=none",
        "/queue",
        f"/reports/{key(4)}/document",
        f"/reports/{key(4)}",
    ):
        browser.goto(address + path)
        assert browser.evaluate("document.querySelectorAll('script, img, object, embed').length") == 0
        assert "alert(" in browser.text() or "alert(" in browser.in_frame("document.body.innerText")
    assert browser.in_frame("document.querySelectorAll('script, img').length") == 0


def test_it_is_drawn_in_both_themes(served: tuple[str, Service], browser: Visitor) -> None:
    sign_in(browser, served[0])
    pictures, grounds = [], []
    for scheme in ("light", "dark"):
        browser.prefer(scheme)
        pictures.append(browser.screenshot())
        grounds.append(browser.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert grounds == ["rgb(246, 247, 249)", "rgb(15, 20, 26)"]
    assert all(len(picture) > 30_000 for picture in pictures)
    assert browser.evaluate("document.documentElement.scrollWidth <= innerWidth")
