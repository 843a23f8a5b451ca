"""Carries out a Containerfile without a builder: its steps as written, over this machine's own programs.

What is replaced, and by what:

- `FROM python:…-slim` is a root file system of this machine's `/usr` and of the Python that runs the tests,
  bound read-only: a RUN cannot write there, and the version of Python may be another one.
- No package is fetched. The distributions that `pyproject.toml` asks for are already in PYTHONPATH. The
  `pip install` of the Containerfile runs as written, without a network and with PIP_NO_INDEX: it finds each
  requirement satisfied within the constraints or fails, and builds and installs ftsec-audit itself.

Everything else happens: COPY through `.containerignore`, RUN as root in namespaces without a network, ARG,
ENV, WORKDIR, USER, ENTRYPOINT, CMD. An instruction that is not known here is an error.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import string
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from builders import base_image
from builders.images import Stage


class Instruction(NamedTuple):
    word: str
    rest: str


def instructions(containerfile: Path) -> list[Instruction]:
    """Continuation lines joined, comments left out."""
    text = re.sub(r"\\\n\s*", "", containerfile.read_text())
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [Instruction(word, rest) for word, _, rest in (line.partition(" ") for line in lines)]


def stages(containerfile: Path) -> list[list[Instruction]]:
    """Each begins with its FROM."""
    parts: list[list[Instruction]] = []
    for instruction in instructions(containerfile):
        if instruction.word == "FROM":
            parts.append([])
        parts[-1].append(instruction)
    return parts


def build(context: Path, work: Path) -> Stage:
    """Carries out `context/Containerfile` below `work`; the last stage."""
    done: dict[str, Stage] = {}
    stage = None
    for number, part in enumerate(stages(context / "Containerfile")):
        base, _, name = part[0].rest.partition(" AS ")
        assert base not in done, "a stage upon another stage: how to carry this out has not been said"
        stage = Stage(root=work / f"stage{number}", environment=dict(base_image.ENVIRONMENT))
        base_image.lay_out(stage.root, context)
        for instruction in part[1:]:
            stage = _carried_out(stage, instruction, context, done)
        done[name or str(number)] = stage
    assert stage is not None
    return stage


def _carried_out(stage: Stage, instruction: Instruction, context: Path, done: dict[str, Stage]) -> Stage:
    word, rest = instruction
    known = {**stage.arguments, **stage.environment}
    if word == "RUN":
        stage.step(rest)
        return stage
    if word == "COPY":
        _copy(stage, shlex.split(rest), context, done)
        return stage
    if word == "ENTRYPOINT":
        return replace(stage, entrypoint=tuple(json.loads(rest)))
    if word == "CMD":
        return replace(stage, command=tuple(json.loads(rest)))
    rest = string.Template(rest).safe_substitute(known)
    if word == "ARG":
        name, _, value = rest.partition("=")
        return replace(stage, arguments={**stage.arguments, name: value})
    if word == "ENV":
        return replace(stage, environment={**stage.environment, **dict(_pairs(rest))})
    if word == "USER":
        user, _, group = rest.partition(":")
        return replace(stage, user=(int(user), int(group)))
    if word == "WORKDIR":
        (stage.root / rest.lstrip("/")).mkdir(parents=True, exist_ok=True)
        return replace(stage, directory=rest)
    raise AssertionError(f"{word}: how to carry this out has not been said")


def _pairs(rest: str) -> Iterator[tuple[str, str]]:
    for pair in shlex.split(rest):
        name, _, value = pair.partition("=")
        yield name, value


def _copy(stage: Stage, words: list[str], context: Path, done: dict[str, Stage]) -> None:
    """COPY: of a folder its contents, of a file the file; from another stage or from the context."""
    origin, ignored = context, _ignored(context)
    if words[0].startswith("--from="):
        origin, ignored = done[words.pop(0).removeprefix("--from=")].root, None
    *sources, target = words
    into = stage.root / str(PurePosixPath(stage.directory) / target).lstrip("/")
    for source in sources:
        path = origin / source.lstrip("/")
        if path.is_dir():
            shutil.copytree(path, into, symlinks=True, ignore=ignored, dirs_exist_ok=True)
        else:
            if target.endswith("/"):
                into.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, into)


def _ignored(context: Path) -> Callable[[str, list[str]], set[str]]:
    """What `.containerignore` leaves out below a folder that it lets in: its patterns for any depth."""
    lines = (context / ".containerignore").read_text().splitlines()
    patterns = [line.removeprefix("**/") for line in lines if line.startswith("**/")]
    return shutil.ignore_patterns(*patterns)
