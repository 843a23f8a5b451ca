"""What a batch of told work has left behind when its driver or a worker was killed."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path


def documents(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Name → content and time of the last change."""
    found = (folder / "store").glob("*/[0-9a-f]*.json")
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in found}


def log(folder: Path) -> list[tuple[int, str]]:
    path = folder / "log"
    lines = path.read_text().splitlines() if path.exists() else []
    return [(int(line.split()[0]), line.split()[1]) for line in lines]


def until(condition: Callable[[], bool], seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.01)


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def children(parent: int) -> list[int]:
    """Of a process, those that run."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            if int(path.read_text().rpartition(")")[2].split()[1]) == parent:
                found.append(int(path.parent.name))
    return found
