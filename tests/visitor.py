"""Somebody who visits one page after the other in a real browser, and writes and clicks there."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import browser

_EXPLAINED = "Failed to load resource"
"""What the console says of any answer that is not a success."""


class Visitor:
    """Unlike a `Page`, keeps what all pages complained of, asked for and ran."""

    def __init__(self, page: browser.Page) -> None:
        self._page = page
        self._console: list[str] = []
        self._requests: list[str] = []
        told = "window.alert = text => console.error('a script ran: ' + text)"
        page("Page.addScriptToEvaluateOnNewDocument", source=told)

    @property
    def console(self) -> list[str]:
        return [line for line in (*self._console, *self._page.console) if _EXPLAINED not in line]

    @property
    def requests(self) -> list[str]:
        return [*self._requests, *self._page.requests]

    def goto(self, url: str) -> None:
        self._console += self._page.console
        self._requests += self._page.requests
        self._page.open(url)

    def evaluate(self, expression: str) -> Any:
        return self._page.evaluate(expression)

    def text(self, selector: str = "body") -> str:
        return str(self.evaluate(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''"))

    @property
    def url(self) -> str:
        return str(self.evaluate("location.href"))

    def fill(self, selector: str, text: str) -> None:
        """Click into a field and write."""
        self._press_on(selector)
        self._page("Input.insertText", text=text)

    def click(self, selector: str) -> None:
        """Click, and wait for the page that comes of it."""
        self._and_wait(lambda: self._press_on(selector))

    def enter(self) -> None:
        """Press the key, and wait for the page that comes of it."""
        self._and_wait(self._page.enter)

    def tab(self) -> None:
        self._page.tab()

    def prefer(self, scheme: str) -> None:
        self._page.media(scheme=scheme)

    def screenshot(self) -> bytes:
        return self._page.screenshot()

    def in_frame(self, expression: str) -> Any:
        """The value of an expression in the first frame of the page."""
        (frame, *_) = self._page("Page.getFrameTree")["frameTree"]["childFrames"]
        world = self._page("Page.createIsolatedWorld", frameId=frame["frame"]["id"])
        context = world["executionContextId"]
        answer = self._page("Runtime.evaluate", expression=expression, contextId=context, returnByValue=True)
        return answer["result"].get("value")

    def _press_on(self, selector: str) -> None:
        place = (
            f"(() => {{ const e = document.querySelector({json.dumps(selector)}); e.scrollIntoView();"
            "const b = e.getClientRects()[0]; return [b.x + b.width / 2, b.y + b.height / 2] })()"
        )
        x, y = self.evaluate(place)
        where = {"x": x, "y": y, "button": "left", "clickCount": 1}
        self._page("Input.dispatchMouseEvent", type="mousePressed", **where)
        self._page("Input.dispatchMouseEvent", type="mouseReleased", **where)

    def _and_wait(self, deed: Callable[[], None]) -> None:
        before, deadline = self.evaluate("performance.timeOrigin"), time.monotonic() + 60
        deed()
        while not self._is_loaded(before):
            assert time.monotonic() < deadline, "no page was loaded"
            time.sleep(0.05)

    def _is_loaded(self, before: float) -> bool:
        try:
            state = self.evaluate("[performance.timeOrigin, document.readyState]")
        except AssertionError:  # one page is gone and the next one not there yet
            return False
        return bool(state[0] != before and state[1] == "complete")


@contextmanager
def visiting(scratch: Path) -> Iterator[Visitor]:
    """Skips the test where there is no browser."""
    # A frame of its own process would need a session of its own.
    with browser.page(scratch, "--disable-features=IsolateSandboxedIframes") as page:
        yield Visitor(page)
