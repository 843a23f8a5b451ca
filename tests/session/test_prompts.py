"""Prompts that a model writes itself are different, whole, and framed as it is asked."""

from __future__ import annotations

import pytest
from builders.behaviour import asked, tiny_base

from ftsec_audit.session.prompts import neutral_prompts


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
