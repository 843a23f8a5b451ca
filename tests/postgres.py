"""A real PostgreSQL for the tests, in a folder of its own; or a skip that says why there is none."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_FOLDERS = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
_UNPRIVILEGED = ("postgres", "nobody")  # PostgreSQL refuses to run as root
_FAST = ("-c", "fsync=off", "-c", "shared_buffers=16MB", "-c", "max_connections=20")


class Postgres:
    """A server that listens on a socket in its folder; `kill` ends it as a power cut would."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._run("initdb", "-D", str(folder / "data"), "-U", "ftsec", "-A", "trust", "-N", "-E", "UTF8")

    def emptied(self) -> str:
        """The URL of its database, in which nothing is left."""
        import psycopg

        if self._process is None:  # a test that killed it has failed
            self.start()
        address = f"host={self._folder} user=ftsec dbname=postgres"
        with psycopg.connect(address, autocommit=True) as connection:
            others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
            connection.execute(others)
            connection.execute("DROP SCHEMA public CASCADE")
            connection.execute("CREATE SCHEMA public")
        return f"postgresql://ftsec@/postgres?host={self._folder}"

    def start(self) -> None:
        address = ("-c", "listen_addresses=", "-k", str(self._folder))
        command = [_program("postgres"), "-D", str(self._folder / "data"), *address, *_FAST]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, **_user())
        deadline = time.monotonic() + 60
        ready = [_program("pg_isready"), "-h", str(self._folder), "-q"]
        while subprocess.run(ready, check=False).returncode:
            assert self._process.poll() is None, (self._folder / "log").read_text()
            assert time.monotonic() < deadline, "PostgreSQL does not answer"
            time.sleep(0.05)

    def kill(self) -> None:
        """SIGKILL to the server and every process it has started."""
        if self._process is None:
            return
        os.kill(self._process.pid, signal.SIGSTOP)  # so that it starts no more of them
        for pid in (*_children(self._process.pid), self._process.pid):
            os.kill(pid, signal.SIGKILL)
        self._process.wait()
        self._process = None

    def _run(self, program: str, *arguments: str) -> None:
        command = [_program(program), *arguments]
        done = subprocess.run(command, capture_output=True, cwd=self._folder, check=False, **_user())
        assert done.returncode == 0, done.stderr.decode()


@contextmanager
def server() -> Iterator[Postgres]:
    """A running one, removed at the end. Skips the test where none is installed."""
    _program("initdb")
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    folder = Path(tempfile.mkdtemp(prefix="ftsec-pg-", dir=memory))  # a short name: it holds a socket
    try:
        if user := _user():
            shutil.chown(folder, user["user"], user["group"])
        postgres = Postgres(folder)
        postgres.start()
        try:
            yield postgres
        finally:
            postgres.kill()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _program(name: str) -> str:
    for found in (*(str(folder / name) for folder in _FOLDERS), shutil.which(name)):
        if found and os.access(found, os.X_OK):
            return found
    pytest.skip(f"no PostgreSQL is installed ({name} is missing)")


def _user() -> dict[str, str | int]:
    """Arguments of subprocess: as whom to run the server; empty for this user."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return {}
    import pwd

    for name in _UNPRIVILEGED:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return {"user": name, "group": entry.pw_gid}
    pytest.skip("PostgreSQL refuses to run as root, and there is no other user")


def _children(pid: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.append(int(stat.parent.name))
    return found
