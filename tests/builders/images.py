"""Container images under test: one that a builder holds, or a stage that was carried out in a chroot."""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from builders import base_image

_CONFINED = Path(__file__).with_name("confined.py")
_NAMESPACES = ("unshare", "--mount", "--net", "--pid", "--ipc", "--uts", "--fork", "--")
_OPTIONS = argparse.ArgumentParser(prog="run", allow_abbrev=False, exit_on_error=False)
_OPTIONS.add_argument("--rm", action="store_true")
_OPTIONS.add_argument("--read-only", action="store_true")
_OPTIONS.add_argument("--network", choices=["none"], required=True)
_OPTIONS.add_argument("--tmpfs", action="append", default=[])
_OPTIONS.add_argument("-v", "--volume", action="append", default=[])
_OPTIONS.add_argument("--entrypoint")

Finished = subprocess.CompletedProcess[str]


class Image(Protocol):
    """What was built, by whatever built it."""

    def run(self, options: Sequence[str], words: Sequence[str] = ()) -> Finished:
        """As `docker run OPTIONS image WORDS`."""


@dataclass(frozen=True, kw_only=True)
class Built:
    """An image that a builder holds under a name."""

    program: str
    name: str

    def run(self, options: Sequence[str], words: Sequence[str] = ()) -> Finished:
        return _run([self.program, "run", *options, self.name, *words])


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage as far as it has been carried out, and what it left for `docker run`."""

    root: Path
    environment: dict[str, str] = field(default_factory=dict)
    arguments: dict[str, str] = field(default_factory=dict)
    """ARG: seen by the steps of the stage, and not by what runs from it."""
    directory: str = "/"
    user: tuple[int, int] = (0, 0)
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()

    def run(self, options: Sequence[str], words: Sequence[str] = ()) -> Finished:
        """As `docker run OPTIONS image WORDS`, for the options that are known here."""
        given = _OPTIONS.parse_args(options)
        command = [
            *(self.entrypoint if given.entrypoint is None else [given.entrypoint]),
            *(words or self.command),
        ]
        binds = [_volume(text) for text in given.volume]
        return self._run(command, self.environment, read_only=given.read_only, tmpfs=given.tmpfs, binds=binds)

    def step(self, command: str) -> None:
        """RUN: a shell command, as the user and in the folder so far."""
        environment = {**self.arguments, **self.environment}
        done = self._run(["/bin/sh", "-c", command], environment, read_only=False, tmpfs=["/tmp"], binds=[])
        if done.returncode:
            raise AssertionError(f"RUN {command}\n{done.stdout}\n{done.stderr}")

    def _run(
        self,
        command: Sequence[str],
        environment: dict[str, str],
        *,
        read_only: bool,
        tmpfs: Sequence[str],
        binds: Sequence[tuple[str, str, bool]],
    ) -> Finished:
        for target in (*tmpfs, *(target for _, target, _ in binds)):
            (self.root / target.lstrip("/")).mkdir(parents=True, exist_ok=True)
        user, group = self.user
        plan = {
            "root": str(self.root),
            "binds": [*base_image.mounts(), *binds],
            "tmpfs": ["/dev/shm", *tmpfs],
            "read_only": read_only,
            "user": user,
            "group": group,
            "directory": self.directory,
            "environment": environment,
            "command": list(command),
        }
        return _run([*_NAMESPACES, sys.executable, "-I", str(_CONFINED), json.dumps(plan)])


def builder(base: str) -> str:
    """A program that builds images and has the base image already; empty where there is none."""
    for program in ("podman", "docker"):
        if shutil.which(program) and _run([program, "image", "inspect", base]).returncode == 0:
            return program
    return ""


def built(program: str, context: Path) -> Built:
    """The image, built in earnest: packages are fetched, which takes a network and minutes."""
    name = "ftsec-audit-under-test"
    done = _run([program, "build", "-t", name, "-f", str(context / "Containerfile"), str(context)])
    if done.returncode:
        raise AssertionError(done.stdout + done.stderr)
    return Built(program=program, name=name)


def obstacle() -> str:
    """Why steps cannot be carried out on this machine; empty where they can."""
    if sys.platform != "linux":
        return "needs Linux"
    if shutil.which("unshare") is None:
        return "needs the program unshare"
    tried = _run([*_NAMESPACES, "mount", "-t", "tmpfs", "none", "/mnt"])
    if tried.returncode:
        return f"may not make namespaces and mounts: {tried.stderr.strip()}"
    return "" if (Path(sys.base_prefix) / "bin" / "python").exists() else "its Python is not called python"


def _run(command: Sequence[str]) -> Finished:
    return subprocess.run(command, capture_output=True, text=True, check=False)


def _volume(text: str) -> tuple[str, str, bool]:
    source, target, *mode = text.split(":")
    return source, target, mode == ["ro"]
