"""A real browser for the tests: headless Chromium, or a skip that says why there is none.

It is spoken to over a pipe in the DevTools protocol, without a driver in between:
https://chromedevtools.github.io/devtools-protocol
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run", "--disable-quic"),
    *(
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--disable-extensions",
    ),
    *("--remote-debugging-pipe", "--window-size=1100,1400"),
)
_COMPLAINTS = ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown")


def executable() -> str:
    """Skips the test where there is no browser."""
    found = next(filter(None, map(shutil.which, _NAMES)), None)
    if found is None:
        pytest.skip("no Chromium is installed")
    return found


@dataclass
class Page:
    """One tab; `open` forgets what the page before it did."""

    _sent: Any
    _received: Any
    _session: str = ""
    _last: int = 0
    console: list[str] = field(default_factory=list)
    """What was written to the console: errors, and violations of the content security policy."""
    requests: list[str] = field(default_factory=list)
    """Every address that was asked for, the page's own first."""

    def open(self, address: str) -> None:
        self.console.clear()
        self.requests.clear()
        self("Page.navigate", url=address)
        self._until("Page.loadEventFired")

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression, asked from outside: the page's policy does not apply."""
        answer = self("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def press(self, key: str, code: int, *, text: str = "") -> None:
        for kind in ("keyDown", "keyUp"):
            more = {"text": text} if text and kind == "keyDown" else {}
            self("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **more)

    def tab(self) -> None:
        self.press("Tab", 9)

    def enter(self) -> None:
        self.press("Enter", 13, text="\r")

    def media(self, media: str = "", *, scheme: str = "light") -> None:
        """As on `screen` or in `print`, in a light or dark colour scheme."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self("Emulation.setEmulatedMedia", media=media, features=features)

    def screenshot(
        self, *, whole: bool = False, clip: tuple[int, int, int, int] | None = None, scale: float = 1
    ) -> bytes:
        """PNG of the window, of the whole page, or of (x, y, width, height) of it times `scale`."""
        area = (
            dict(zip(("x", "y", "width", "height", "scale"), (*clip, scale), strict=True)) if clip else None
        )
        shot = self("Page.captureScreenshot", captureBeyondViewport=whole or bool(clip), **_given(clip=area))
        return base64.b64decode(shot["data"])

    def pdf(self) -> bytes:
        return base64.b64decode(self("Page.printToPDF", printBackground=True)["data"])

    def __call__(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._last += 1
        message = {"id": self._last, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._sent.write(json.dumps(message).encode() + b"\0")
        self._sent.flush()
        while True:
            answer = self._next()
            if answer.get("id") == self._last:
                assert "error" not in answer, answer
                return answer["result"]

    def _until(self, event: str) -> None:
        while self._next().get("method") != event:
            pass

    def _next(self) -> dict[str, Any]:
        data = bytearray()
        while (byte := self._received.read(1)) != b"\0":
            assert byte, "the browser has ended"
            data += byte
        message: dict[str, Any] = json.loads(data)
        if message.get("method") in _COMPLAINTS and not _is_notice(message["params"]):
            self.console.append(json.dumps(message["params"]))
        if message.get("method") == "Network.requestWillBeSent":
            self.requests.append(message["params"]["request"]["url"])
        return message


def _is_notice(params: dict[str, Any]) -> bool:
    """What the browser remarks on without complaining, e.g. that a field was clicked before its autofocus."""
    return params.get("entry", {}).get("level") in ("verbose", "info")


@contextmanager
def page(scratch: Path, *flags: str) -> Iterator[Page]:
    """A tab of a browser, with further `flags`, that keeps everything below `scratch`."""
    to_browser, from_browser = os.pipe(), os.pipe()
    # The protocol wants file descriptors 3 and 4: a shell moves them there.
    script = f'exec "$@" 3<&{to_browser[0]} 4>&{from_browser[1]}'
    command = ["/bin/bash", "-c", script, "bash", executable(), *_FLAGS, *flags]
    process = subprocess.Popen(
        [*command, f"--user-data-dir={scratch / 'profile'}", "about:blank"],
        pass_fds=(to_browser[0], from_browser[1]),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(to_browser[0])
    os.close(from_browser[1])
    try:
        with os.fdopen(to_browser[1], "wb") as sent, os.fdopen(from_browser[0], "rb") as received:
            tab = Page(sent, received)
            targets = tab("Target.getTargets")["targetInfos"]
            target = next(one["targetId"] for one in targets if one["type"] == "page")
            tab._session = tab("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            for domain in ("Page", "Runtime", "Log", "Network"):
                tab(f"{domain}.enable")
            yield tab
    finally:
        process.kill()
        process.wait()


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
