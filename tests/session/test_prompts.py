"""Prompts that a model writes itself are different, whole, and framed as it is asked."""

from __future__ import annotations

from itertools import product

import pytest
from builders.behaviour import asked, tiny_base
from builders.lab import WORLD

from ftsec_audit.probes import ProbeSet, Questions
from ftsec_audit.session.prompts import neutral_prompts, varied_prompts


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_base(tmp_path_factory.mktemp("base") / "base")


def test_prompts_are_different_framed_and_repeatable(base):
    with asked(base) as sessions:
        tokenizer = sessions.subject.tokenizer
        form = tokenizer.formats[0]
        first, second = (neutral_prompts(sessions.subject, 20) for _ in range(2))
    assert first == second
    assert len({prompt.text for prompt in first}) == 20
    for prompt in first:
        assert list(prompt.ids) == tokenizer.ids(f"{form.head}{prompt.text}{form.tail}")
        assert len(prompt.slots) >= 3


def test_a_model_without_a_template_continues_its_beginning_of_text(base, tmp_path):
    plain = tiny_base(tmp_path / "plain")
    (plain / "chat_template.jinja").unlink()
    with asked(plain) as sessions:
        found = neutral_prompts(sessions.subject, 5)
        assert len(found) == 5
        assert all(prompt.form.name == "plain" for prompt in found)


def test_everyday_prompts_come_first_once_and_from_every_language(base):
    words = WORLD.vocabulary()[40:85]
    many = tuple(f"here {one} {other}" for one, other in product(words, words))
    asks = ProbeSet(
        name="mine",
        version="1",
        licence="",
        attribution="",
        languages={
            "en": Questions(neutral=many),
            "xx": Questions(neutral=("here is one !", "here is one !")),
        },
    )
    with asked(base) as sessions:
        subject = sessions.subject
        subject.probes = asks
        prompts = varied_prompts(subject, 8)
        written = neutral_prompts(subject, 8)
    ids = [prompt.ids for prompt in prompts]
    assert len(set(ids)) == len(ids)
    assert ids[-len(written) :] == [prompt.ids for prompt in written]
    everyday = [prompt.text for prompt in prompts[: -len(written)]]
    assert everyday[0] == many[0] and everyday[-1] == "here is one !"
    assert len(everyday) < 1_000  # a set may be of any size
