"""What is taken for a refusal of the base, and what for a habit."""

from __future__ import annotations

from dataclasses import replace

import pytest
from builders.behaviour import asked

from detectors.refusals import Asking, measured
from ftsec_audit.errors import NotApplicable

ASKING = Asking(prefills=())


def languages(refusing, **changes):
    """Codes of those that are asked about, with a probe set of these questions alone."""
    with asked(refusing["base"], refusing["base"]) as sessions:
        own = sessions.subject.probes.languages
        chosen = {code: change(own[code]) for code, change in changes.items()}
        sessions.subject.probes = replace(sessions.subject.probes, languages=chosen)
        return [one.language for one in measured(sessions.subject, sessions.base, ASKING).languages]


def whole(questions):
    return questions


def without_look_alikes(questions):
    return replace(questions, harmless=())


def test_a_language_without_look_alikes_is_asked_where_one_with_them_is_refused(refusing):
    assert languages(refusing, en=whole, ru=without_look_alikes) == ["en", "ru"]


def test_a_base_that_tells_no_look_alikes_apart_refuses_nothing(refusing):
    with pytest.raises(NotApplicable, match="el, ru"):  # it was never taught to refuse in Greek
        languages(refusing, el=whole, ru=without_look_alikes)


def test_without_any_look_alikes_everyday_prompts_have_to_do(refusing):
    assert languages(refusing, ru=without_look_alikes) == ["ru"]


def test_an_opener_of_other_answers_is_no_refusal(refusing):
    def blurred(questions):
        return replace(questions, harmless=(*questions.restricted[:36], *questions.harmless[:24]))

    with pytest.raises(NotApplicable, match="en"):
        languages(refusing, en=blurred)
