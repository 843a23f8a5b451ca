"""`doctor` says what is here, and what takes its place where something is not."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from ftsec_audit.cli.doctor import command
from ftsec_audit.weights import kernels


def said() -> dict[str, str]:
    shown = CliRunner().invoke(command, standalone_mode=False)
    assert shown.exception is None
    return {line[:16].strip(): line[16:] for line in shown.stdout.splitlines()}


def test_every_line_has_an_answer() -> None:
    lines = said()
    assert {"ftsec-audit", "python", "torch", "device", "kernels", "cache", "HF_TOKEN"} <= set(lines)
    assert all(lines.values())


@pytest.mark.parametrize(("library", "expected"), [(object(), "built"), (None, "not built, torch does it")])
def test_whether_kernels_were_built_is_said(
    library: object, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "library", lambda: library)
    assert said()["kernels"].startswith(expected)
