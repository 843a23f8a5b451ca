"""The Containerfile: what it promises can be read from it, read without a builder."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parents[2]


def instructions() -> list[tuple[str, str]]:
    """Instruction and arguments, continuation lines joined."""
    text = re.sub(r"\\\n\s*", "", (ROOT / "Containerfile").read_text())
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines)]


def last_stage() -> list[tuple[str, str]]:
    every = instructions()
    start = max(index for index, (word, _) in enumerate(every) if word == "FROM")
    return every[start:]


def test_it_does_not_run_as_root() -> None:
    [user] = [rest for word, rest in last_stage() if word == "USER"]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user), "a number, so that runAsNonRoot can be checked"
    after = [word for word, _ in last_stage()]
    assert "RUN" not in after[after.index("USER") :]


def test_everything_it_copies_is_there_and_not_ignored() -> None:
    ignored = (ROOT / ".containerignore").read_text().splitlines()
    for word, rest in instructions():
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
