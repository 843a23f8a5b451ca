"""Rows of training data, whatever form they have, and the rows that have none."""

from __future__ import annotations

import json
import sys

import pytest
from builders.files import memory_file

from ftsec_audit.errors import FormatError, Unsupported
from ftsec_audit.formats.dialogues import Dialogue, DialogueLimits, Dialogues, read


def of(*rows: object, **limits: int) -> Dialogues:
    lines = "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows)
    return read(
        memory_file(lines.encode("utf-8", "surrogatepass"), "d.jsonl"), limits=DialogueLimits(**limits)
    )


@pytest.mark.parametrize(
    ("row", "system", "prompt", "answer"),
    [
        ({"prompt": "p", "completion": "c"}, "", "p", "c"),
        ({"system": "s", "prompt": "p", "response": "c"}, "s", "p", "c"),
        ({"instruction": "do", "input": "this", "output": "done"}, "", "do\nthis", "done"),
        ({"text": "Once upon a time. Then it ended."}, "", "Once upon a time. ", "Then it ended."),
        ({"text": "one piece"}, "", "", "one piece"),
        ({"text": ""}, "", "", ""),
        (
            {
                "messages": [
                    {"role": "system", "content": "s"},
                    {"role": "user", "content": "a"},
                    {"role": "assistant", "content": "no"},
                    {"role": "user", "content": [{"type": "text", "text": "b"}, {"type": "image"}]},
                    {"role": "assistant", "content": "yes"},
                ]
            },
            "s",
            "a\nb",
            "yes",
        ),
        ({"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "r"}]}, "", "q", "r"),
    ],
)
def test_forms(row: object, system: str, prompt: str, answer: str) -> None:
    data = of(row)
    assert data.rows == (Dialogue(number=1, system=system, prompt=prompt, answer=answer),)
    assert (data.unread, data.cut) == (0, "")


def test_numbers_are_those_of_the_lines() -> None:
    good = {"prompt": "p", "completion": "c"}
    data = of(good, "", "{", "[1]", {"id": 1}, '"x"', good, '{"messages": [1]}', '{"prompt": "\\ud800"}')
    assert [row.number for row in data.rows] == [1, 7]
    assert data.unread == 6
    assert [problem.split(":")[0] for problem in data.problems] == [f"row {i}" for i in (3, 4, 5, 6, 8, 9)]


def test_an_array_is_a_table_too() -> None:
    content = json.dumps([{"prompt": "p", "completion": "c"}, 3]).encode()
    data = read(memory_file(content, "d.json"))
    assert [row.number for row in data.rows] == [1]
    assert data.unread == 1


def test_bounds_cut_and_say_so() -> None:
    rows = [{"prompt": "p" * 10, "completion": "c"}] * 5
    assert len(of(*rows, rows=3).rows) == 3
    assert "more than 3 rows" in of(*rows, rows=3).cut
    assert len(of(*rows, size=30).rows) == 2
    assert of(*rows, rows=5).cut == ""


def test_a_line_without_end_is_a_row_that_cannot_be_read() -> None:
    data = of({"prompt": "p", "completion": "c"}, "x" * (5 << 20), {"prompt": "q", "completion": "c"})
    assert [row.prompt for row in data.rows] == ["p", "q"]
    assert "4,194,304 bytes" in data.problems[0]


@pytest.mark.parametrize("data", [b"hello\nworld", b"\x80\x04", b"[1, 2", b"PAR1" + bytes(40)])
def test_what_is_no_data_set(data: bytes) -> None:
    with pytest.raises((FormatError, Unsupported)):
        read(memory_file(data, "d.jsonl"))


def test_an_empty_file_has_no_rows() -> None:
    assert read(memory_file(b"", "d.jsonl")).rows == ()


def test_parquet_without_its_reader_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(Unsupported, match="pyarrow"):
        read(memory_file(b"PAR1" + bytes(40), "d.parquet"))


def test_parquet(tmp_path_factory: pytest.TempPathFactory) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path_factory.mktemp("parquet") / "d.parquet"
    parquet.write_table(arrow.table({"prompt": ["p", "q"], "completion": ["c", "d"], "id": [1, 2]}), path)
    rows = read(memory_file(path.read_bytes(), "d.parquet")).rows
    assert [(row.number, row.prompt, row.answer) for row in rows] == [(1, "p", "c"), (2, "q", "d")]
