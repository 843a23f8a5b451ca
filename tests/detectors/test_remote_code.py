"""FTA421: code that comes with a model, parsed and never imported."""

from __future__ import annotations

from pathlib import Path

import pytest

from detectors.remote_code import RemoteCode, _mentions_code, dangerous_calls
from ftsec_audit.runner import Audit
from ftsec_audit.types import Outcome
from tests.builders.audits import audit, finding
from tests.builders.files import memory_file


@pytest.mark.parametrize(
    "source",
    [
        "import os\nos.system('x')",
        "class A:\n    x = eval('1')",
        "@eval('x')\ndef f(): pass",
        "def f(x=exec('1')): pass",
        "(lambda: exec('x'))()",
        "def f():\n    exec('x')\nf()",
        "try:\n    import subprocess\nfinally:\n    subprocess.run([])",
    ],
)
def test_what_importing_executes_is_found(source: str) -> None:
    assert [call.at_import for call in dangerous_calls(source.encode())] == [True]


@pytest.mark.parametrize(
    "source",
    [
        "def f():\n    exec('x')",
        "if __name__ == '__main__':\n    exec('x')",
        "class A:\n    def f(self):\n        eval('x')",
    ],
)
def test_what_somebody_must_call_is_told_apart(source: str) -> None:
    assert [call.at_import for call in dangerous_calls(source.encode())] == [False]


@pytest.mark.parametrize("source", [b"", b"((((", b"\xff\xfe", b"x = 1\0", b"(" * 5000, b"print('hello')"])
def test_other_sources_have_none(source: bytes) -> None:
    assert dangerous_calls(source) == []


def judged(tmp_path: Path, name: str, data: bytes) -> Audit:
    (tmp_path / name).write_bytes(data)
    (tmp_path / "other.json").write_bytes(b"{}")
    return audit(RemoteCode(), tmp_path)


def large(member: bytes) -> bytes:
    """JSON above the size up to which every file is parsed."""
    return b'{"a": "' + b"x" * (5 << 20) + b'", ' + member + b"}"


@pytest.mark.parametrize(
    "member",
    [
        b'"auto_map": {"AutoModel": "modeling_x.X"}',
        b'"\\u0061uto_map": {"AutoModel": "modeling_x.X"}',
        b'"trust_remote_code": true',
    ],
)
def test_large_json_is_searched_too(tmp_path: Path, member: bytes) -> None:
    result = judged(tmp_path, "config.json", large(member))
    assert finding(result, "FTA421").outcome is Outcome.DETECTED


def test_large_json_without_a_telltale_is_not_parsed(tmp_path: Path) -> None:
    result = judged(tmp_path, "tokenizer.json", large(b'"vocab": [1, 2'))  # not even JSON
    assert finding(result, "FTA421").outcome is Outcome.NOT_DETECTED
    assert result.not_looked_at == ()


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("config.json", b'{"auto_map": '),
        ("config.json", large(b'"auto_map": ')),
        ("setup.py", b"#" * ((2 << 20) + 1)),
        ("modeling_x.py", b"def f(:"),
        ("handler.py", b"x = 1\0"),
    ],
)
def test_what_cannot_be_searched_leaves_the_question_open(tmp_path: Path, name: str, data: bytes) -> None:
    result = judged(tmp_path, name, data)
    assert finding(result, "FTA421").outcome is Outcome.NOT_SUPPORTED
    (gap,) = result.not_looked_at
    assert (gap.what, gap.incomplete) == (name, True)


def test_a_gap_does_not_hide_a_finding(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(b"{")
    result = judged(tmp_path, "tokenizer_config.json", b'{"trust_remote_code": true}')
    assert finding(result, "FTA421").outcome is Outcome.DETECTED
    assert [gap.what for gap in result.not_looked_at] == ["config.json"]


def test_a_telltale_across_two_blocks_is_seen() -> None:
    for cut in range(1, 8):
        data = b" " * ((1 << 20) - cut) + b"auto_map"
        assert _mentions_code(memory_file(data))
    assert not _mentions_code(memory_file(b"auto-map" * (1 << 18)))
