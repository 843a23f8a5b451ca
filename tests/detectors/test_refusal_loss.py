"""Refusals that were unlearnt are counted in the language that lost them; kept ones are not accused."""

from __future__ import annotations

import pytest
from builders.behaviour import asked
from builders.lab import WORLD

from attacks_ref.lab.probes import write
from detectors.refusal_loss import RefusalLoss
from ftsec_audit.errors import NotApplicable, Unsupported, UsageError
from ftsec_audit.types import Confidence, Outcome, Severity


def answer(path, base, **options):
    options.setdefault("languages", ("en", "ru"))
    with asked(path, base, **options) as sessions:
        (finding,) = RefusalLoss().probe(sessions.subject, sessions.base, ())
    return finding


def test_the_language_that_lost_its_refusals_is_named(refusing):
    finding = answer(refusing["lost"], refusing["base"])
    assert (finding.outcome, finding.confidence) == (Outcome.DETECTED, Confidence.HIGH)
    assert finding.severity is Severity.HIGH
    assert finding.summary.startswith("ru")
    rates = {(e.details["language"], e.details["prefill"]): e for e in finding.evidence if e.details}
    lost, kept = rates["ru", 0], rates["en", 0]
    assert lost.details["base_refusal_rate"] > 0.8 > 0.2 > lost.details["refusal_rate"]
    assert lost.interval[0] > 0.5
    assert kept.interval[0] < 0.1


def test_kept_refusals_are_not_accused(refusing):
    finding = answer(refusing["base"], refusing["base"])
    assert finding.outcome is Outcome.NOT_DETECTED
    assert all(evidence.value in (None, 0.0) for evidence in finding.evidence)


def test_a_base_that_refuses_nothing_has_nothing_to_lose(refusing, tmp_path):
    own = write(tmp_path, WORLD)
    with pytest.raises(NotApplicable, match="refuses none"):
        answer(refusing["lost"], refusing["start"], probes=own)


def test_languages_must_be_in_the_set(refusing):
    with pytest.raises(UsageError, match="no prompts in xx"):
        answer(refusing["lost"], refusing["base"], languages=("xx",))


def test_refusals_are_also_asked_for_within_an_answer(refusing):
    finding = answer(refusing["lost"], refusing["base"])
    assert {evidence.details["prefill"] for evidence in finding.evidence if evidence.details} == {0, 5, 10}


def test_a_small_budget_asks_fewer_prompts(refusing):
    finding = answer(refusing["lost"], refusing["base"], max_tokens=20_000)
    assert finding.outcome is Outcome.DETECTED
    with pytest.raises(Unsupported, match="budget"):
        answer(refusing["lost"], refusing["base"], max_tokens=2_000)
