"""The Containerfile: what it promises, read from it and seen in what its steps make.

The steps are carried out by a builder where there is one that has the base image, and else in a chroot over
this machine's own programs: `builders.containerfile` says what that replaces.
"""

from __future__ import annotations

import json
import re
import shlex
import string
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from builders import containerfile, images
from builders.adapters import write_adapter, write_checkpoint
from builders.containerfile import instructions
from builders.images import Finished, Image

ROOT = Path(__file__).parents[2]
FILE = ROOT / "Containerfile"

CONFINEMENT = """
import importlib.util, json, os, socket, sys

def failure(attempt):
    try:
        attempt()
    except OSError as error:
        return type(error).__name__ + ": " + str(error)

print(json.dumps({
    "user": [os.getuid(), os.getgid(), os.getgroups()],
    "written": [p for p in sys.argv[1:] if failure(lambda: open(p + "/new", "w").close()) is None],
    "connected": failure(lambda: socket.create_connection(("192.0.2.1", 443), timeout=5)),
    "interfaces": [name for _, name in socket.if_nameindex()],
    "pytest": importlib.util.find_spec("pytest") is not None,
    "scanner": importlib.util.find_spec("ftsec_audit").origin,
}))
"""


def last_stage() -> list[containerfile.Instruction]:
    return containerfile.stages(FILE)[-1]


def test_it_does_not_run_as_root() -> None:
    [user] = [rest for word, rest in last_stage() if word == "USER"]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user), "a number, so that runAsNonRoot can be checked"
    after = [word for word, _ in last_stage()]
    assert "RUN" not in after[after.index("USER") :]


def test_everything_it_copies_is_there_and_not_ignored() -> None:
    ignored = (ROOT / ".containerignore").read_text().splitlines()
    for word, rest in instructions(FILE):
        if word == "COPY" and not rest.startswith("--from"):
            *sources, _ = shlex.split(rest)
            for source in sources:
                assert (ROOT / source).exists()
                assert f"!{source}" in ignored


def test_what_it_writes_lies_where_a_read_only_root_lets_it() -> None:
    settings = dict(
        pair.split("=", 1) for word, rest in last_stage() if word == "ENV" for pair in shlex.split(rest)
    )
    for name in ("HOME", "FTSEC_AUDIT_CACHE", "HF_HOME"):
        assert settings[name].startswith(("/tmp", "/cache"))
    assert settings["PYTHONDONTWRITEBYTECODE"] == "1"


def test_its_entry_point_is_a_program_of_this_distribution() -> None:
    import tomllib

    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    [entry] = [rest for word, rest in last_stage() if word == "ENTRYPOINT"]
    assert entry == '["ftsec-audit"]'
    assert "ftsec-audit" in scripts
    assert scripts["hf-ftsec-audit"] == scripts["ftsec-audit"]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    [base] = {part[0].rest.split()[0] for part in containerfile.stages(FILE)}
    if program := images.builder(base):
        yield images.built(program, ROOT)
    elif reason := images.obstacle():
        pytest.skip(reason)
    else:
        yield containerfile.build(ROOT, tmp_path_factory.mktemp("image"))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base and two adapters; the second has an embedding matrix that its configuration does not mention."""
    folder = tmp_path_factory.mktemp("models")

    def edit(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {**tensors, "base_model.model.model.embed_tokens.weight": torch.randn(64, 32)}

    write_checkpoint(folder / "base")
    write_adapter(folder / "clean")
    write_adapter(folder / "poisoned", edit=edit)
    subprocess.run(["chmod", "-R", "a+rX", str(folder)], check=True)  # as the documentation says
    return folder


def documented() -> tuple[list[str], list[str]]:
    """Options and words of the `podman run` in the documentation, `$PWD` left in."""
    page = (ROOT / "docs" / "integrations.md").read_text()
    [command] = re.findall(r"^podman run ((?:.*\\\n)*.*)$", page, re.MULTILINE)
    words = shlex.split(command.replace("\\\n", " "))
    image_at = words.index("ftsec-audit")
    return words[:image_at], words[image_at + 1 :]


def run_documented(image: Image, folder: Path) -> Finished:
    options, words = documented()
    return image.run([string.Template(option).substitute(PWD=folder) for option in options], words)


@pytest.mark.slow
@pytest.mark.parametrize(("adapter", "expected"), [("clean", 0), ("poisoned", 1)])
def test_the_documented_command_answers_with_the_exit_code_of_the_verdict(
    adapter: str, expected: int, image: Image, models: Path, tmp_path: Path
) -> None:
    (tmp_path / "adapter").symlink_to(models / adapter)
    (tmp_path / "base").symlink_to(models / "base")
    done = run_documented(image, tmp_path)
    assert done.returncode == expected, done.stdout + done.stderr
    assert ("FTA102" in done.stdout) is (adapter == "poisoned")
    assert "0 errors" in done.stdout


@pytest.mark.slow
def test_it_has_no_rights_no_network_and_no_packages_but_its_own(image: Image) -> None:
    options, _ = documented()
    bare = [option for option in options if "$PWD" not in option and option != "-v"]
    places = ["/", "/usr", "/opt/ftsec-audit", "/work", "/tmp", "/cache"]
    done = image.run([*bare, "--entrypoint", "python"], ["-c", CONFINEMENT, *places])
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["user"] == [65532, 65532, []]
    assert seen["written"] == ["/tmp", "/cache"]
    assert seen["connected"] is not None
    assert seen["interfaces"] == ["lo"]
    assert seen["scanner"].startswith("/opt/ftsec-audit/lib/"), "installed, not read from the sources"
    assert not seen["pytest"], "a package that it does not ask for"


@pytest.mark.slow
def test_without_words_it_tells_how_to_use_it(image: Image) -> None:
    done = image.run(["--network", "none", "--read-only"])
    assert done.returncode == 0, done.stderr
    assert "Usage: ftsec-audit" in done.stdout
