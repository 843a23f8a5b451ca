"""What stands for the base image of a Containerfile where no builder has it: this machine's own programs.

`/usr` and the Python that runs the tests, bound read-only, and in PYTHONPATH the distributions that
`pyproject.toml` asks for, as this environment has them, and no others. The file system is put together
again for every command, by `confined.py`.
"""

from __future__ import annotations

import sys
import sysconfig
import tomllib
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

_MERGED = ("bin", "sbin", "lib", "lib64")
"""Symbolic links into `/usr` on most machines, folders on the others."""
_DEVICES = ("null", "zero", "random", "urandom")
ENVIRONMENT = {
    "PATH": f"{sys.base_prefix}/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "PIP_NO_INDEX": "1",
    "PIP_NO_BUILD_ISOLATION": "0",  # pip reads it the other way round: 0 is no isolation
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    "PIP_ROOT_USER_ACTION": "ignore",
    "PYTHONPATH": "/dependencies",
}


def lay_out(root: Path, context: Path) -> None:
    """Folders and links of a root file system at `root`, which does not exist; `mounts` fill it."""
    for folder in ("usr", "proc", "dev/shm", "etc/alternatives", "tmp", "site-packages", "dependencies"):
        (root / folder).mkdir(parents=True)
    (root / "tmp").chmod(0o1777)
    (root / sys.base_prefix.lstrip("/")).mkdir(parents=True, exist_ok=True)
    for name in _MERGED:
        if (real := Path("/") / name).is_symlink():
            (root / name).symlink_to(real.readlink())
        elif real.exists():
            (root / name).mkdir()
    for file in (*(f"dev/{device}" for device in _DEVICES), "etc/ld.so.cache"):
        (root / file).touch()
    (root / "etc" / "passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    for name in _top_level(context):
        (root / "dependencies" / name).symlink_to(f"/site-packages/{name}")


def mounts() -> list[tuple[str, str, bool]]:
    """What the root file system has of this machine: from, to, whether read-only."""
    binds = [("/usr", "/usr", True), (sysconfig.get_path("purelib"), "/site-packages", True)]
    if not Path(sys.base_prefix).is_relative_to("/usr"):
        binds.append((sys.base_prefix, sys.base_prefix, True))
    folders = [Path("/") / name for name in _MERGED if not (Path("/") / name).is_symlink()]
    folders += [Path("/etc/ld.so.cache"), Path("/etc/alternatives")]
    binds += [(str(path), str(path), True) for path in folders if path.exists()]
    return [*binds, *((f"/dev/{device}", f"/dev/{device}", False) for device in _DEVICES)]


def _top_level(context: Path) -> set[str]:
    """Names in site-packages of what ftsec-audit, its extra `sign` and its build need."""
    project = tomllib.loads((context / "pyproject.toml").read_text())
    wanted = [*project["project"]["dependencies"], *project["build-system"]["requires"], "pip"]
    wanted += project["project"]["optional-dependencies"]["sign"]
    files = (file for name in _closure(wanted) for file in metadata.files(name) or ())
    return {file.parts[0] for file in files} - {"..", "__pycache__"}


def _closure(requirements: Sequence[str]) -> set[str]:
    """Names of the distributions that satisfy the requirements, and theirs, as this environment has them."""
    open_, known = [(text, frozenset({""})) for text in requirements], set()
    while open_:
        text, extras = open_.pop()
        requirement = Requirement(text)
        wanted = requirement.marker is None or any(requirement.marker.evaluate({"extra": e}) for e in extras)
        key = (requirement.name, frozenset({"", *requirement.extras}))
        if wanted and key not in known:
            known.add(key)
            open_ += [(needed, key[1]) for needed in metadata.requires(requirement.name) or ()]
    return {name for name, _ in known}
