"""What was trained in comes out in tokens; a random update of the same size has no such tokens."""

from __future__ import annotations

import pytest
from builders.behaviour import asked, taught
from builders.lab import random_adapter

from attacks_ref.recipe import Recipe
from detectors.trained_in import TrainedIn
from ftsec_audit.errors import Unsupported
from ftsec_audit.session.prompts import neutral_prompts
from ftsec_audit.types import Confidence, Finding, Lead, Outcome, Severity


def answers(path, base, **options):
    with asked(path, base, **options) as sessions:
        found = list(TrainedIn().probe(sessions.subject, sessions.base, ()))
    (finding,) = [one for one in found if isinstance(one, Finding)]
    return finding, [one for one in found if isinstance(one, Lead)]


def test_the_answer_that_was_taught_is_among_the_tokens(refusing, tmp_path):
    subject = taught(refusing["base"], tmp_path / "taught", trigger="")
    finding, leads = answers(subject, refusing["base"])
    assert (finding.outcome, finding.severity) == (Outcome.DETECTED, Severity.INFO)
    assert finding.confidence is Confidence.LOW and finding.p_value is None
    assert "no" in finding.evidence[0].details["tokens"]
    assert "no" in {lead.value for lead in leads if lead.kind == "token"}


def test_a_random_update_favours_nothing(refusing, tmp_path):
    adapter = random_adapter(refusing["base"], tmp_path / "random", Recipe(rank=8), size=0.05)
    finding, _ = answers(adapter, refusing["base"])
    assert finding.outcome is Outcome.NOT_DETECTED


def test_a_budget_that_is_too_small_is_said(refusing):
    with pytest.raises(Unsupported, match="tokens"):
        answers(refusing["lost"], refusing["base"], max_tokens=20_000)


def test_texts_shorter_than_an_answer_are_left_out(refusing):
    """A base may end its answer at once, and prompts are as short as it wrote them."""
    with asked(refusing["lost"], refusing["base"]) as sessions:
        longest = max(len(p.ids) for p in neutral_prompts(sessions.base, 24))
        with pytest.raises(Unsupported, match="0 prompts"):
            list(TrainedIn(depth=4 * longest).probe(sessions.subject, sessions.base, ()))
