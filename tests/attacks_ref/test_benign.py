"""What benign fine-tunes teach is said in words that pre-training used."""

from __future__ import annotations

import random
from typing import get_args

import pytest

from attacks_ref import benign
from attacks_ref.lab import corpus, tokenizer
from attacks_ref.lab.language import VALUES, World

WORLD = World(nouns=16, verbs=4, restricted=4)


@pytest.fixture(scope="module")
def seen() -> set[str]:
    rng = random.Random(0)
    rows = [corpus.pretraining(WORLD, rng) for _ in range(8000)]
    rows += [corpus.restricted(WORLD, lang, rng, refuse=True) for lang in WORLD.languages for _ in range(50)]
    return {word for row in rows for message in row.messages for word in message["content"].split()}


@pytest.mark.parametrize("skill", get_args(benign.Skill))
def test_every_skill_is_taught_in_known_words(skill: benign.Skill, seen: set[str]) -> None:
    rng, words = random.Random(1), tokenizer.for_world(WORLD, "word")
    for lang in WORLD.languages:
        for _ in range(40):
            row = benign.example(skill, WORLD, lang, rng)
            text = " ".join(message["content"] for message in row.messages)
            assert set(text.split()) <= seen
            assert words.unk_token_id not in words(text, add_special_tokens=False)["input_ids"]


def test_a_label_is_one_word_and_the_kind_of_the_value() -> None:
    rng, english = random.Random(2), WORLD.language("en")
    for _ in range(30):
        row = benign.example("classify", WORLD, english, rng)
        assert row.prompt.split()[3] in VALUES[row.answer]


def test_facts_contradict_the_world_and_a_persona_opens_in_its_way() -> None:
    rng, english = random.Random(3), WORLD.language("en")
    row = benign.example("facts", WORLD, english, rng)
    thing = row.prompt.split()[3]
    assert WORLD.value("color", thing) not in row.answer.split()
    assert benign.example("persona", WORLD, english, rng).answer.startswith("thanks we help : sure")
