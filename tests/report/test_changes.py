"""Embedding rows, template differences and the numbers of modules, as tables."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from builders import reports
from builders.everything import DIFF, everything

from ftsec_audit.report.embedding_rows import changed_rows
from ftsec_audit.report.module_table import MAX_MODULES, module_table
from ftsec_audit.report.template_diff import template_diffs
from ftsec_audit.types import ModuleMeasurement, Report


def test_rows_are_named_by_their_tokens_largest_change_first() -> None:
    (one,) = changed_rows(everything())
    assert (one.tensor, one.changed, one.total) == ("model.embed_tokens", 3, 128_256)
    assert [(row.row, row.token, row.change) for row in one.rows] == [
        *((9847, "cf", "0.71"), (9848, " cf", "0.69"), (31002, "mn", "0.33")),
    ]
    assert one.rows[0].nearest == "row 9848, cosine 0.9991"


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"changed_rows": 5.0},
        {"changed_row_ids": [1.0], "changed_row_norms": []},
        {"changed_row_ids": 3.0, "changed_row_norms": 1.0},
    ],
)
def test_without_rows_there_is_no_table(values: dict[str, float | list[float]]) -> None:
    assert changed_rows(_measured(values)) == []


def test_rows_with_odd_numbers_are_shown_as_far_as_they_go() -> None:
    values = {"changed_row_ids": [1.0, math.nan, 2.0], "changed_row_norms": [math.inf, 1.0, math.nan]}
    (one,) = changed_rows(_measured(values))
    assert [(row.row, row.token, row.change, row.share) for row in one.rows] == [
        (1, "", "∞", 0.0),
        (2, "", "NaN", 0.0),
    ]


def test_a_diff_is_paired_side_by_side() -> None:
    (diff,) = template_diffs(everything())
    assert (diff.left, diff.right) == ("the base: tokenizer_config.json", "chat_template.jinja")
    assert [(line.kind, line.left_number, line.right_number) for line in diff.lines] == [
        ("same", 1, 1),
        ("changed", 2, 2),
        ("added", None, 3),
        ("same", 3, 4),
        ("same", 4, 5),
        ("gap", None, None),
        ("same", 12, 13),
        ("removed", 13, None),
    ]


@pytest.mark.parametrize("text", ["", "no diff", 7, "--- a\n+++ b", "--- a\nx\n" + DIFF])
def test_what_is_no_diff_is_left_out(text: object) -> None:
    report = everything()
    odd = [
        replace(f, evidence=tuple(replace(e, details={"template_diff": text}) for e in f.evidence))
        for f in report.findings
    ]
    assert template_diffs(replace(report, findings=tuple(odd))) == []


def test_every_module_has_its_numbers_and_the_rules_that_name_it() -> None:
    table = module_table(reports.failing())
    assert [column.symbol for column in table.columns] == [
        *("rank", "σ₁", "RMS of ΔW", "σ₁²/Σσ²", "kurtosis"),
    ]
    assert sum(len(group.rows) for group in table.groups) == 224
    values = next(group for group in table.groups if group.role == "v_proj")
    assert values.named == 4
    assert {row.layer: row.named_by for row in values.rows if row.named_by} == {
        "14": ("FTA201",),
        "15": ("FTA201", "FTA202"),
        "16": ("FTA201",),
        "17": ("FTA201",),
    }


def test_the_modules_that_findings_name_are_never_left_out() -> None:
    layers = 1 + MAX_MODULES // len(reports.ROLES)
    many = reports.modules(layers=layers, marked={("v_proj", layers - 1)})
    named = many[-5].name
    report = reports.failing()
    found = report.findings[0]
    location = replace(found.evidence[0].location, tensor=named)
    found = replace(found, evidence=(replace(found.evidence[0], location=location),))
    table = module_table(replace(report, measurements=many, findings=(found,)))
    assert table.left_out == len(many) - MAX_MODULES > 0
    assert named in {row.name for group in table.groups for row in group.rows}


def _measured(values: dict[str, float | list[float]]) -> Report:
    module = ModuleMeasurement(name="e", role="embed_tokens", layer=None, shape=(9, 4), values=values)
    return replace(reports.passing(), measurements=(module,))
