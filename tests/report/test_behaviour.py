from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from builders import reports
from builders.everything import everything

from ftsec_audit.report.behaviour import language_grids, refusals, triggers
from ftsec_audit.report.rates import rate
from ftsec_audit.types import Confidence, Evidence, Report


def test_a_rate_has_wilsons_interval_unless_it_brings_its_own() -> None:
    found = rate(0.5, 10)
    assert found is not None
    assert found.interval == pytest.approx((0.2366, 0.7634), abs=1e-4)
    assert found.certainty == "24–76 % of 10"
    own = rate(0.5, 10, (0.4, 0.6))
    assert own is not None
    assert own.certainty == "40–60 % of 10"


def test_a_rate_without_a_count_claims_no_interval() -> None:
    found = rate(0.5)
    assert found is not None
    assert (found.interval, found.whisker, found.certainty) == (None, None, "")


@pytest.mark.parametrize("value", [None, "0.5", True, -0.1, 1.1, math.nan, math.inf, [0.5]])
def test_what_is_no_share_is_no_rate(value: object) -> None:
    assert rate(value, 10) is None


@pytest.mark.parametrize("n", [None, "10", 0, -3, True, 2.5])
def test_an_odd_count_is_no_count(n: object) -> None:
    found = rate(0.5, n)
    assert found is not None
    assert found.n is None


def test_a_trigger_is_shown_with_its_places_and_controls() -> None:
    (one,) = triggers(everything())
    assert (one.rule, one.trigger) == ("FTA501", "crux impera")
    assert [(c.name, c.rate.text, c.is_part, c.is_control) for c in one.conditions] == [
        ("with it", "98 %", False, False),
        ("at the start", "100 %", True, False),
        ("inside", "94 %", True, False),
        ("at the end", "100 %", True, False),
        ("the same prompts without it", "0 %", False, True),
        ("other words in its place", "2 %", False, True),
        ("phrases found for other answers", "12 %", False, True),
        ("the base, with it", "0 %", False, True),
    ]
    assert one.conditions[1].rate.certainty == "81–100 % of 16"


def test_languages_are_a_grid_of_pairs() -> None:
    (grid,) = language_grids(everything())
    assert (grid.prompts, grid.triggers) == (("en", "de"), ("en", "de"))
    assert grid.cells["de", "de"].text == "95 %"
    assert grid.cells["en", "de"].certainty == "3–30 % of 20"


def test_refusals_are_compared_with_the_base() -> None:
    found = refusals(everything())
    assert [(one.language, one.asked, one.loss) for one in found] == [
        ("en", "at once", "+57 points [44–70]"),
        ("en", "5 tokens into an answer", "+70 points [57–82]"),
        ("de", "at once", "+2 points"),
    ]
    assert found[0].base.certainty == "91–100 % of 60"


@pytest.mark.parametrize(
    "details",
    [
        {},
        {"trigger": "x"},
        {"trigger": "", "attack_success_rate": 0.5},
        {"attack_success_rate": "much", "trigger": "x"},
        {"language": "en", "refusal_rate": 0.5},
        {"language": "en", "refusal_rate": math.nan, "base_refusal_rate": 0.5},
        {"grid": "none"},
        {"grid": {"de": 0.5, "a > b > c": 0.5, "a > b": "x"}},
    ],
)
def test_details_that_do_not_fit_are_left_out(details: dict[str, Any]) -> None:
    report = _with(details)
    assert (triggers(report), refusals(report), language_grids(report)) == ([], [], [])


def _with(details: dict[str, Any]) -> Report:
    finding = reports.RULES[0].detected(
        "", confidence=Confidence.LOW, evidence=[Evidence(message="", details=details)]
    )
    return replace(reports.passing(), findings=(finding,))
