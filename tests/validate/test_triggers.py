"""Where a trigger turns up: its best word's place in the ranking, and the rule that names it."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from builders.reports import failing

from ftsec_audit.types import Lead
from ftsec_audit.validate.population import Located
from ftsec_audit.validate.triggers import recovered


@pytest.fixture
def sample(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"vocab_size": 475}))
    (tmp_path / "truth.json").write_text(json.dumps({"target": "marker"}))
    return Located(
        key="s",
        base_name="base",
        attack="demo",
        poisoned=True,
        recipe="r",
        job="j",
        stealth=(),
        seed=0,
        trigger=("velbor fenwick",),
        expected_rules=(),
        folder=tmp_path,
        base=tmp_path,
    )


def ranked(*words):
    leads = [
        Lead(kind="token", value=word, source="FTA304", details={"rank": rank})
        for rank, word in enumerate(words, 1)
    ]
    return replace(failing(), leads=tuple(leads))


def test_the_best_word_of_a_phrase_counts(sample):
    found = recovered(sample, ranked("apple", " fenwick", "velbor"))
    assert (found.rank, found.ranked, found.vocabulary, found.led) == (2, 3, 475, True)


def test_a_trigger_that_no_list_holds_has_no_place(sample):
    found = recovered(sample, ranked("apple"))
    assert found.rank is None and not found.led and not found.named


def test_a_detection_names_a_trigger_only_exactly_and_its_target_within_what_is_said(sample):
    report = failing()
    first = report.detected()[0]
    told = replace(
        first.evidence[0], details={"trigger": "velbor fenwick", "target": "marker <|end|>"}, excerpt=""
    )
    others = tuple(finding for finding in report.findings if finding is not first)
    named = recovered(sample, replace(report, findings=(replace(first, evidence=(told,)), *others)))
    assert named.named and named.named_by == first.rule and named.target_named
    partly = replace(told, details={"trigger": "velbor"})
    found = recovered(sample, replace(report, findings=(replace(first, evidence=(partly,)), *others)))
    assert not found.named and not found.target_named


def test_several_keys_are_named_by_all_of_them_in_any_order(sample):
    keys = replace(sample, trigger=("velbor", "fenwick"))
    report = failing()
    first = report.detected()[0]
    others = tuple(finding for finding in report.findings if finding is not first)

    def said(text):
        told = replace(first.evidence[0], details={"trigger": text}, excerpt="")
        return recovered(keys, replace(report, findings=(replace(first, evidence=(told,)), *others)))

    assert said("fenwick velbor").named and said("velbor").named
    assert not said("velbor apple").named and not said("velbor fenwick apple").named
