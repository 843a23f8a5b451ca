"""A real browser for the tests: headless Chromium, or a skip that says why there is none."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

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
    *("--enable-logging=stderr", "--window-size=1100,1400"),
)
_DARK = "--blink-settings=preferredColorScheme=0"


@dataclass(frozen=True)
class Visit:
    """What a browser made of a page."""

    dom: str
    console: tuple[str, ...]
    """What was written to the console: errors, and violations of the content security policy."""
    network_log: str


def executable() -> str:
    """Skips the test where there is no browser."""
    found = next(filter(None, map(shutil.which, _NAMES)), None)
    if found is None:
        pytest.skip("no Chromium is installed")
    return found


def visit(page: Path, scratch: Path) -> Visit:
    network_log = scratch / "network.json"
    done = _run(page, scratch, "--dump-dom", f"--log-net-log={network_log}")
    console = tuple(line for line in done.stderr.splitlines() if "CONSOLE" in line)
    return Visit(done.stdout, console, network_log.read_text(errors="replace"))


def screenshot(page: Path, scratch: Path, *, dark: bool = False) -> bytes:
    """The first screen as PNG."""
    picture = scratch / "screen.png"
    _run(page, scratch, f"--screenshot={picture}", *([_DARK] if dark else []))
    return picture.read_bytes()


def _run(page: Path, scratch: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [executable(), *_FLAGS, f"--user-data-dir={scratch / 'profile'}", *arguments, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=120, check=True)
