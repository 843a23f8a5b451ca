"""Runs one scanner's command line over many targets inside one process image, a fork for each.

Started by `artifact_peers.py` with the Python of the environment that holds the scanner. Forking after
the import gives every target a fresh process without paying the start-up again; start-up is measured
apart. Prints one JSON line per target: `{"code": …, "seconds": …, "timeout": …, "rss_mb": …}`.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import resource
import signal
import sys
import time
from pathlib import Path

ENTRY = {
    "modelaudit": "modelaudit.cli:main",
    "modelscan": "modelscan.cli:main",
    "picklescan": "picklescan.cli:main",
    "fickling": "fickling.cli:main",
    "ftsec-audit": "ftsec_audit.cli:main",
}


def main() -> None:
    tool, limit = sys.argv[1], float(sys.argv[2])
    module, function = ENTRY[tool].split(":")
    entry = getattr(importlib.import_module(module), function)
    for line in sys.stdin:
        print(json.dumps(_run(entry, tool, json.loads(line), limit)), flush=True)


def _run(entry: object, tool: str, arguments: list[str], limit: float) -> dict[str, object]:
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        _child(entry, [tool, *arguments])
    while time.monotonic() - started < limit:
        done, status, usage = os.wait4(child, os.WNOHANG)
        if done:
            seconds = time.monotonic() - started
            code = os.waitstatus_to_exitcode(status)
            return {"code": code, "seconds": seconds, "timeout": False, "rss_mb": usage.ru_maxrss / 1024}
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return {"code": None, "seconds": limit, "timeout": True, "rss_mb": 0.0}


def _child(entry: object, arguments: list[str]) -> None:
    sink = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(sink, stream)
    resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
    sys.argv = arguments
    code = 70  # an exception that nobody caught
    with contextlib.suppress(Exception):
        try:
            code = entry() or 0  # type: ignore[operator]
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1 if stop.code else 0
    os._exit(int(code))


if __name__ == "__main__":
    os.chdir(Path(sys.argv[3]))
    main()
