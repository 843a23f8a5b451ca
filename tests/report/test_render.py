from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest
from builders import reports

from ftsec_audit.errors import UsageError
from ftsec_audit.report import FORMATS, render
from ftsec_audit.types import ProbePrompt, Report

ALL = [reports.passing(), reports.failing(), reports.inconclusive(), reports.hostile()]


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("report", ALL, ids=["passing", "failing", "inconclusive", "hostile"])
def test_every_format_renders_every_report_the_same_way_each_time(format: str, report: Report) -> None:
    text = render(report, format)
    assert text == render(report, format)
    assert text.endswith("\n")
    text.encode("utf-8")


@pytest.mark.parametrize("format", ["table", "html", "markdown", "sarif", "cyclonedx"])
@pytest.mark.parametrize("report", ALL)
def test_every_report_says_what_a_pass_means(format: str, report: Report) -> None:
    assert "A pass means no known indicator was found, not that risk is zero." in render(report, format)


@pytest.mark.parametrize("format", FORMATS)
def test_no_format_lets_a_control_character_through(format: str) -> None:
    text = render(reports.hostile(), format)
    assert not any(char in text for char in "\x1b\x9b\x00\r\u202e\u2066\u200b\ufeff\U000e0041")


@pytest.mark.parametrize("format", [one for one in FORMATS if one != "intoto"])
def test_prompts_are_named_and_their_texts_stand_where_they_were_asked_for(format: str) -> None:
    named = tuple(ProbePrompt(id=f"asked-1/en/restricted/{number}") for number in range(1, 10))
    shown = tuple(replace(prompt, text="how may one pick-a-lock") for prompt in named)
    for prompts in (named, shown):
        report = reports.failing()
        first = report.detected()[0]
        evidence = (replace(first.evidence[0], prompts=prompts), *first.evidence[1:])
        text = render(replace(report, findings=(replace(first, evidence=evidence),)), format)
        assert "asked-1/en/restricted/1" in text
        assert ("pick-a-lock" in text) is (prompts is shown)
        if format not in ("json", "jsonl") and prompts is named:
            assert "asked-1/en/restricted/1, 2, 3, 4, 5 and 4 more" in text


def test_an_unknown_format_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="one of table, json"):
        render(reports.passing(), "pdf")


def test_importing_the_package_imports_no_format() -> None:
    heavy = ("rich", "jinja2", "pydantic", "torch")
    code = f"import sys, ftsec_audit.report; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


@pytest.mark.parametrize("format", ["json", "jsonl", "sarif", "markdown", "cyclonedx", "intoto"])
def test_machine_formats_need_neither_rich_nor_jinja_nor_pydantic(format: str) -> None:
    code = (
        f"import sys; from ftsec_audit.report import {format}; "
        "print([m for m in ('rich', 'jinja2', 'pydantic', 'torch', 'numpy') if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
