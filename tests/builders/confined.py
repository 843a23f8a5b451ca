"""Runs one command in a chroot, as the first process of its own namespaces: see `containerfile`.

    unshare --mount --net --pid --ipc --uts --fork -- python confined.py '{"root": …}'

Plain standard library, and nothing of this project is imported.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys


def mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True)


def enter(
    *,
    root: str,
    binds: list[tuple[str, str, bool]],
    tmpfs: list[str],
    read_only: bool,
    user: int,
    group: int,
    directory: str,
    environment: dict[str, str],
    command: list[str],
) -> None:
    """Does not return. `binds` are (from, to, whether read-only); `to` and `tmpfs` exist below `root`."""
    mount("--bind", root, root)
    for source, target, protected in binds:
        mount("--bind", source, root + target)
        if protected:
            mount("-o", "remount,bind,ro", root + target)
    mount("-t", "proc", "proc", f"{root}/proc")
    for target in tmpfs:
        mount("-t", "tmpfs", "-o", "mode=1777", "tmpfs", root + target)
    if read_only:
        mount("-o", "remount,bind,ro", root)
    os.chroot(root)
    os.chdir(directory)
    os.setgroups([])
    os.setgid(group)
    os.setuid(user)
    os.execvpe(command[0], command, environment)


if __name__ == "__main__":
    enter(**json.loads(sys.argv[1]))
