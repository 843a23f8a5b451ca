"""A genuine MLflow server with a SQLite backend, and registered models in it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_PATIENCE = 420.0
"""Seconds until a server that does not answer is given up; creating its tables alone takes some."""


@contextmanager
def serving(root: Path, **environment: str) -> Iterator[str]:
    """The address of a server that keeps everything below `root`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--backend-store-uri", f"sqlite:///{root / 'registry.sqlite'}", "--workers", "1"]
    command += ["--artifacts-destination", str(root / "artifacts")]
    env = {
        **os.environ,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "OMP_NUM_THREADS": "1",
        **environment,
    }
    log = root / "server.log"
    with log.open("w") as written:
        server = subprocess.Popen(
            command, cwd=root, env=env, stdout=written, stderr=written, start_new_session=True
        )
    address = f"http://127.0.0.1:{port}"
    try:
        _wait(f"{address}/health", server, log)
        yield address
    finally:
        os.killpg(server.pid, signal.SIGKILL)  # its tables go with it
        server.wait(30)


def _wait(address: str, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        if server.poll() is not None:
            break
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.3)
    raise RuntimeError(f"the MLflow server did not start:\n{log.read_text()[-2000:]}")


def register(address: str, name: str, folder: Path) -> str:
    """Upload a folder, register it as the next version of a model; the version."""
    client = _client(address)
    run = client.create_run("0")
    client.log_artifacts(run.info.run_id, str(folder), "model")
    if not client.search_registered_models(f"name='{name}'"):
        client.create_registered_model(name)
    found = client.create_model_version(name, f"{run.info.artifact_uri}/model", run.info.run_id)
    return str(found.version)


def tell(address: str, url: str, secret: str, *, name: str) -> None:
    """Have every new version told to a webhook."""
    _client(address).create_webhook(name, url, ["model_version.created"], secret=secret)


def version(address: str, name: str, number: str) -> Any:
    return _client(address).get_model_version(name, number)


def point(address: str, name: str, alias: str, number: str) -> None:
    _client(address).set_registered_model_alias(name, alias, number)


def _client(address: str) -> Any:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=address, registry_uri=address)
