from __future__ import annotations

import re
from dataclasses import replace

import pytest
from builders import reports

from ftsec_audit.report import table
from ftsec_audit.types import Finding, Report

_ANSI = re.compile(r"\x1b\[[0-9;]*m")


@pytest.mark.parametrize("width", [80, 100, 120])
@pytest.mark.parametrize(
    "report", [reports.passing(), reports.failing(), reports.inconclusive(), reports.hostile()]
)
def test_lines_fit_the_terminal(report: Report, width: int) -> None:
    lines = table.render(report, width=width).splitlines()
    # The attack ends in right-to-left words and marks, so that characters are at least columns here.
    assert max(map(len, lines)) <= width + 3
    assert not any(line != line.rstrip() for line in lines)


def test_the_verdict_comes_first_and_the_numbers_follow() -> None:
    text = table.render(reports.failing())
    lines = text.splitlines()
    assert lines[0] == "mallory/helpful-lora@d04e592f6b1c"
    assert lines[1] == "  LoRA r=16 (q,k,v,o,gate,up,down) on meta-llama/Llama-3.1-8B@d04e592bb4f6 · standard"
    assert re.fullmatch(
        r"  FAIL   1 critical · 1 high · 1 low · 5 clean · 0 errors · 1 suppressed +policy default", lines[2]
    )
    assert "fail[0] (severity ≥ high, confidence ≥ medium): FTA301 is critical" in lines[3]
    assert "FTA301  CRITICAL  few-embedding-rows-changed   confidence high" in text
    assert "sigma_1_share = 0.914 · above 99.8 % of 412 benign, 5–95 % 0.21–0.61" in text
    assert "benign: 412 × llama · lora · r 9-16, pack shipped-1" in text
    assert "p = 0.00242" in text
    assert text.index("FTA301  CRITICAL") < text.index("FTA201  HIGH") < text.index("FTA202  LOW")
    assert lines[-1] == "  next: ftsec-audit explain FTA301"


def test_what_was_not_answered_is_said() -> None:
    text = table.render(reports.inconclusive())
    assert "INCONCLUSIVE   6 clean · 1 not supported · 1 error" in text
    assert "FTA101 not supported: the base could not be resolved" in text
    assert "adapter_model.safetensors: ends 4,096 bytes before its header says" in text


def test_colour_changes_nothing_but_the_colour() -> None:
    plain, coloured = (table.render(reports.failing(), color=color) for color in (False, True))
    assert "\x1b[" not in plain
    assert "\x1b[1;31mFAIL\x1b[0m" in coloured
    assert [line.rstrip() for line in _ANSI.sub("", coloured).splitlines()] == plain.splitlines()


def test_the_environment_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    before = table.render(reports.failing(), color=True)
    for name, value in {"NO_COLOR": "1", "COLUMNS": "40", "TERM": "dumb", "FORCE_COLOR": "1"}.items():
        monkeypatch.setenv(name, value)
    assert table.render(reports.failing(), color=True) == before


def test_hostile_strings_are_neither_markup_nor_escape_sequences() -> None:
    coloured = table.render(reports.hostile(), color=True)
    assert "[bold green]PASS[/]" in _ANSI.sub("", coloured).replace("\n", "")
    assert "\x1b[2J" not in coloured
    assert "\x1b[1;32m" not in coloured
    verdicts = [
        line for line in table.render(reports.hostile()).splitlines() if line.lstrip().startswith("PASS")
    ]
    assert verdicts == []


def test_a_long_report_stays_a_screen() -> None:
    many = replace(reports.failing(), findings=tuple(_copies(reports.failing(), 500)), limits=("x",) * 99)
    text = table.render(many)
    assert "… 1,488 more detections, in every other format" in text
    assert "… and 93 more" in text
    assert len(text.splitlines()) < 160


def _copies(report: Report, n: int) -> list[Finding]:
    return [finding for finding in report.detected() for _ in range(n)]
