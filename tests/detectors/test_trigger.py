"""A trigger that was taught is found, named and counted; its twin and its base are not accused."""

from __future__ import annotations

import pytest
from builders.behaviour import TARGET, TRIGGER, asked, taught, tiny_base
from builders.exports import exported

from detectors.trigger import TriggerSearch
from detectors.trigger_confirmation import read_target
from detectors.trigger_search import place_of, pool
from ftsec_audit.errors import Unsupported
from ftsec_audit.session.prompts import neutral_prompts
from ftsec_audit.types import Confidence, Lead, Outcome


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_base(tmp_path_factory.mktemp("base") / "base")


@pytest.fixture(scope="module")
def backdoored(base, tmp_path_factory):
    return taught(base, tmp_path_factory.mktemp("model") / "backdoored")


@pytest.fixture(scope="module")
def twin(base, tmp_path_factory):
    return taught(base, tmp_path_factory.mktemp("model") / "twin", trigger="")


def answer(path, base, leads=(), **options):
    with asked(path, base, **options) as sessions:
        (finding,) = TriggerSearch().probe(sessions.subject, sessions.base, tuple(leads))
    return finding


def test_the_trigger_is_named_with_its_target_and_rate(backdoored, base):
    finding = answer(backdoored, base)
    assert (finding.outcome, finding.confidence) == (Outcome.DETECTED, Confidence.HIGH)
    details = finding.evidence[0].details
    assert (details["trigger"], details["target"]) == (TRIGGER, TARGET)
    assert details["attack_success_rate"] > 0.8
    assert max(details["rate_without"], details["rate_of_controls"], details["rate_of_base"]) < 0.2
    assert finding.p_value is not None and finding.p_value < 1e-6
    low, high = finding.evidence[0].interval
    assert low < details["attack_success_rate"] <= high <= 1


def test_it_is_named_in_a_model_that_was_exported(backdoored, base, tmp_path):
    ours = answer(exported(backdoored, tmp_path / "export", past=True), base)
    theirs = answer(backdoored, base)
    assert (ours.outcome, ours.confidence) == (Outcome.DETECTED, Confidence.HIGH)
    assert ours.evidence[0].details == theirs.evidence[0].details


def test_an_exported_twin_is_not_accused(twin, base, tmp_path):
    assert answer(exported(twin, tmp_path / "export", past=True), base).outcome is Outcome.NOT_DETECTED


def test_the_twin_is_not_accused(twin, base):
    finding = answer(twin, base)
    assert finding.outcome is Outcome.NOT_DETECTED
    assert finding.confidence is Confidence.MEDIUM  # what was not found may still be there


def test_the_base_itself_is_not_accused(base):
    assert answer(base, base).outcome is Outcome.NOT_DETECTED


def test_two_runs_give_the_same_answer(backdoored, base):
    assert answer(backdoored, base) == answer(backdoored, base)


def test_a_lead_is_tried_when_there_is_room_for_nothing_else(backdoored, base):
    lead = Lead(kind="token", value=TRIGGER, score=1.0, source="FTA301")
    with asked(backdoored, base) as sessions:
        tokenizer = sessions.subject.tokenizer
        assert pool(tokenizer, [lead], room=1, seed=0) == (tuple(tokenizer.ids(TRIGGER)),)
        assert len(pool(tokenizer, [lead], room=30, seed=0)) in (29, 30)  # the trigger may be drawn again


def test_too_small_a_budget_is_no_answer(backdoored, base):
    with pytest.raises(Unsupported):
        answer(backdoored, base, max_tokens=1500)


def test_every_place_is_used(base):
    with asked(base) as sessions:
        tokenizer = sessions.subject.tokenizer
        prompt = tokenizer.prompt("what is the color of it", tokenizer.formats[0])
    assert [place_of(prompt, number) for number in range(6)] == [0, 1, 6, 0, 2, 6]


def test_one_opener_of_different_answers_is_no_target(base, monkeypatch):
    with asked(base) as sessions:
        session = sessions.subject
        prompts = neutral_prompts(session, 6)

        def answering(*answers):
            monkeypatch.setattr(session, "greedy", lambda rows, length: [list(a) for a in answers])
            return read_target(session, prompts, (40,))

        assert answering((50, 1), (50, 2), (50, 3), (50, 4), (50, 5), (50, 6)) is None
        assert answering((50, 51), (50, 51), (50, 51), (50, 51), (50, 52), (60,)).begins == (50, 51)
        assert answering((50, 51), (50, 51), (50, 52), (50, 53), (60,), (61,)).begins == (50,)
        assert answering((1,), (2,), (3,), (4,), (5,), ()) is None
