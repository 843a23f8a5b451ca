"""`ftsec-audit serve` in a process of its own, and patience with it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from builders.services import HUB_SECRET, MLFLOW_SECRET, TOKEN

SCAN = ("--profile", "quick", "-j", "1")


class Served:
    """`ftsec-audit serve` as its users start it."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        """`environment` says where models come from."""
        settings = {"HF_HOME": str(folder / "hf"), "MLFLOW_DISABLE_TELEMETRY": "true"}
        settings |= {"FTSEC_AUDIT_CACHE": str(folder / "cache"), "FTSEC_AUDIT_TOKEN": TOKEN}
        settings |= {"FTSEC_AUDIT_HUB_SECRET": HUB_SECRET, "FTSEC_AUDIT_MLFLOW_SECRET": MLFLOW_SECRET}
        settings |= {"PYTHONUNBUFFERED": "1", **environment}
        settings |= {"PYTHONPATH": os.pathsep.join(map(os.path.abspath, filter(None, sys.path)))}
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "FTSEC_"))}
        command = [
            sys.executable,
            "-m",
            "ftsec_audit",
            "serve",
            "--port",
            "0",
            "--store",
            str(folder / "store"),
        ]
        self._process = subprocess.Popen(
            [*command, "--", *SCAN],
            env=kept | settings,
            stderr=subprocess.PIPE,
            text=True,
            cwd=folder,
        )
        assert self._process.stderr is not None
        for line in self._process.stderr:
            if match := re.search(r"http://127\.0\.0\.1:\d+", line):
                self.address = match[0]
                return
        raise AssertionError("the server did not start")

    def get(self, path: str) -> Any:
        return json.loads(self.text(path))

    def text(self, path: str) -> str:
        return self._answer(path, {"Authorization": f"Bearer {TOKEN}"}, None)

    def deliver(self, payload: dict[str, Any]) -> Any:
        return self.ask("/webhooks/hub", {"X-Webhook-Secret": HUB_SECRET}, json.dumps(payload).encode())

    def end(self, number: signal.Signals) -> int:
        self._process.send_signal(number)
        return self._process.wait(60)

    def ask(self, path: str, headers: dict[str, str], data: bytes | None) -> Any:
        return json.loads(self._answer(path, headers, data))

    def _answer(self, path: str, headers: dict[str, str], data: bytes | None) -> str:
        request = urllib.request.Request(self.address + path, data=data, headers=headers)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return str(answer.read().decode())


def until(condition: Callable[[], Any], seconds: float = 240) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.1)
    return found
