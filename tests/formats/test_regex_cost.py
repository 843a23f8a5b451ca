"""Regular expressions from configurations: tried, within a CPU limit, before they are called a trap."""

from __future__ import annotations

import re
import time

import pytest
from corpus.peft_configs import benign, malicious

from ftsec_audit.formats.regex_cost import catastrophic


@pytest.mark.parametrize("pattern", [r"(a+)+$", r"(a|aa)+b", r"x(y*)*z", r"model\.layers\.(\w+\s?)+$"])
def test_exponential_patterns_are_found_with_a_string_that_shows_it(pattern: str) -> None:
    assert catastrophic(pattern)


def test_patterns_of_honest_adapters_are_fast() -> None:
    patterns = [change["target_modules"] for change in benign().values() if "target_modules" in change]
    assert [p for p in patterns if isinstance(p, str) and catastrophic(p)] == []


def test_invalid_and_overlong_patterns_are_named() -> None:
    assert "not a valid" in (catastrophic("(") or "")
    assert "characters" in (catastrophic("a?" * 20_000) or "")


def test_no_pattern_takes_longer_than_its_limit() -> None:
    started = time.process_time()
    for change in malicious().values():
        if isinstance(pattern := change.get("target_modules"), str):
            catastrophic(pattern)
    assert time.process_time() - started < 5, "the scanner itself must not do the matching"


def test_the_string_really_reaches_the_repetition() -> None:
    assert re.match(r"x(y*)*", (catastrophic(r"x(y*)*z") or "")[:-1])
