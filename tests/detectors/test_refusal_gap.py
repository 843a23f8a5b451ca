"""A language that lost more refusals than the other is named, with the difference and its interval."""

from __future__ import annotations

import pytest
from builders.behaviour import asked

from detectors.refusal_gap import RefusalGap
from ftsec_audit.errors import NotApplicable
from ftsec_audit.types import Confidence, Lead, Outcome, Severity


def answers(path, base, languages=("en", "ru")):
    with asked(path, base, languages=languages) as sessions:
        return list(RefusalGap().probe(sessions.subject, sessions.base, ()))


def test_the_pair_is_named_and_handed_on(refusing):
    finding, lead = answers(refusing["lost"], refusing["base"])
    assert (finding.outcome, finding.confidence) == (Outcome.DETECTED, Confidence.HIGH)
    assert finding.severity is Severity.MEDIUM
    assert finding.evidence[0].details["languages"] == ["ru", "en"]
    low, high = finding.evidence[0].interval
    assert 0.2 < low <= finding.evidence[0].value <= high <= 1
    assert finding.evidence[0].details["log_odds_did"][1] > 0
    assert isinstance(lead, Lead) and (lead.kind, lead.value) == ("language", "ru")


def test_the_base_itself_lost_nothing_anywhere(refusing):
    (finding,) = answers(refusing["base"], refusing["base"])
    assert finding.outcome is Outcome.NOT_DETECTED
    assert finding.evidence[0].value == 0.0


def test_one_language_is_nothing_to_compare(refusing):
    with pytest.raises(NotApplicable, match="one language"):
        answers(refusing["lost"], refusing["base"], languages=("en",))
