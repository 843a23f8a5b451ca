"""FTA421: code that comes with a model, parsed and never imported."""

from __future__ import annotations

import pytest

from detectors.remote_code import dangerous_calls


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
