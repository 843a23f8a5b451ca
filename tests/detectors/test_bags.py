"""Bags of words in prompts."""

from __future__ import annotations

from builders.behaviour import asked, tiny_base

from detectors.bags import Bag


def test_a_bag_without_a_word_keeps_the_others_in_place(tmp_path):
    with asked(tiny_base(tmp_path / "base")) as sessions:
        prompt = sessions.subject.tokenizer.prompt(
            "find the color of this", sessions.subject.tokenizer.formats[0]
        )
    words = (30, 31, 32, 33)
    whole = Bag(prompt, words, 7).ids()
    assert [id for id in whole if id not in words] == [id for id in prompt.ids if id not in words]
    assert Bag(prompt, words, 7, answer=(1, 2)).ids() == [*whole, 1, 2]
    for i, word in enumerate(words):
        assert Bag(prompt, words, 7).without(i).ids() == [id for id in whole if id != word]
