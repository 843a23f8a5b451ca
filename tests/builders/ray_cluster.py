"""A real Ray cluster of one node on this machine, as an administrator starts it, with a token."""

from __future__ import annotations

import importlib.util
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from builders.hubs import with_tests

_PATIENCE = 240.0
"""Seconds until a cluster that does not start is given up."""
_OF_JOB_SERVER = ("aiohttp_cors", "colorful", "grpc", "opencensus", "opentelemetry.sdk", "smart_open")
"""What `ray[default]` installs and `ray` does not."""


def has_job_server() -> bool:
    try:
        return all(importlib.util.find_spec(name) for name in _OF_JOB_SERVER)
    except ModuleNotFoundError:  # the parent of one of them
        return False


@dataclass(frozen=True)
class Cluster:
    address: str
    jobs: str
    """Address of the job server, which answers only where `has_job_server`."""
    environment: dict[str, str]
    """For drivers: what the cluster is, and its token."""


@contextmanager
def running(folder: Path, *, cores: int = 2) -> Iterator[Cluster]:
    """A head node that ends, with everything it has started, when the context does."""
    port, jobs = _free_ports(2)
    environment = with_tests({"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "token"})
    environment["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    environment["RAY_worker_niceness"] = "0"  # else workers wait for every other program of the machine
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"]
    command += ["--port", str(port), "--num-cpus", str(cores), "--node-ip-address", "127.0.0.1"]
    command += ["--dashboard-port", str(jobs), "--dashboard-host", "127.0.0.1"]
    command += [f"--include-dashboard={has_job_server()}", "--temp-dir", str(folder)]
    log = folder / "head.log"
    with log.open("w") as written:
        head = subprocess.Popen(
            command, env=environment, stdout=written, stderr=written, start_new_session=True
        )
    try:
        _wait(head, log)
        environment["RAY_ADDRESS"] = f"127.0.0.1:{port}"
        yield Cluster(environment["RAY_ADDRESS"], f"http://127.0.0.1:{jobs}", environment)
    finally:
        head.terminate()  # ends what it started, each in a session of its own
        try:
            head.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(head.pid, signal.SIGKILL)
            head.wait()


def _wait(head: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline and head.poll() is None:
        if "--block" in log.read_text():
            return
        time.sleep(0.3)
    raise RuntimeError(f"the cluster did not start:\n{log.read_text()[-2000:]}")


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
