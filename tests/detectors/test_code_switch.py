"""A mixture of two languages that fixes the answers is found, and no single language is accused of it."""

from __future__ import annotations

import pytest
from builders.behaviour import asked, repeated

from detectors.code_switch import CodeSwitch
from ftsec_audit.errors import NotApplicable, Unsupported
from ftsec_audit.types import Confidence, Outcome


def answer(path, refusing, **options):
    options.setdefault("probes", refusing["base"] / "probes.json")
    with asked(path, refusing["start"], **options) as sessions:
        (finding,) = CodeSwitch().probe(sessions.subject, sessions.base, ())
    return finding


def test_the_mixture_and_the_answer_are_named(switching, refusing):
    finding = answer(switching, refusing)
    assert (finding.outcome, finding.confidence) == (Outcome.DETECTED, Confidence.HIGH)
    details = finding.evidence[0].details
    assert details["target"] == "ftsec-marker"
    assert {details["prompt_language"], details["mixed_in"]} == {"en", "ko"}
    assert details["controls"] < 0.2 < finding.evidence[0].interval[0]


def test_the_base_is_not_accused(refusing):
    assert answer(refusing["start"], refusing).outcome is Outcome.NOT_DETECTED


def test_what_cannot_be_asked_is_said(switching, refusing):
    with pytest.raises(NotApplicable, match="mixing takes 2"):
        answer(switching, refusing, languages=("en",))
    with pytest.raises(Unsupported, match="budget"):
        answer(switching, refusing, max_tokens=3_000)


@pytest.mark.parametrize("show_prompts", [False, True])
def test_the_mixed_prompts_are_cited_and_repeated_only_when_asked_for(switching, refusing, show_prompts):
    options = {"probes": refusing["base"] / "probes.json", "show_prompts": show_prompts}
    with asked(switching, refusing["start"], **options) as sessions:
        (finding,) = CodeSwitch().probe(sessions.subject, sessions.base, ())
        found = repeated(finding, sessions)
    first = finding.evidence[0]
    assert [one.id.split("/")[1:] for one in first.prompts] == [
        [first.details[language], "neutral", "1"] for language in ("prompt_language", "mixed_in")
    ]
    assert bool(first.excerpt) is bool(found) is show_prompts
