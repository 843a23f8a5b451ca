"""The lab's languages share a dictionary, and nothing collides."""

from __future__ import annotations

import random
import unicodedata

import pytest

from attacks_ref.lab import corpus, tokenizer
from attacks_ref.lab.language import MARKER, RARE, World

WORLD = World(nouns=16, verbs=4, restricted=4)


def test_four_languages_in_four_scripts() -> None:
    scripts = {unicodedata.name(lang.say("apple")[0]).split()[0] for lang in WORLD.languages}
    assert scripts == {"LATIN", "CYRILLIC", "GREEK", "HANGUL"}


def test_no_word_means_two_things() -> None:
    words = [word for lang in WORLD.languages for word in lang.words.values()]
    assert len(set(words)) == len(words)
    assert not set(words) & {*RARE, MARKER}


def test_a_fact_is_the_same_in_every_world() -> None:
    assert WORLD.value("color", "apple") == World().value("color", "apple")
    assert World().languages == World().languages


@pytest.mark.parametrize("vocabulary", ["word", "bpe"])
def test_every_conversation_survives_the_tokenizer(vocabulary: tokenizer.Vocabulary) -> None:
    words, rng = tokenizer.for_world(WORLD, vocabulary), random.Random(1)
    for _ in range(200):
        text = corpus.pretraining(WORLD, rng).answer
        ids = words(text, add_special_tokens=False)["input_ids"]
        assert words.unk_token_id not in ids
        assert words.decode(ids).strip() == text


def test_with_byte_pairs_rare_words_are_several_tokens_and_with_words_one() -> None:
    word, bpe = (tokenizer.for_world(WORLD, v) for v in ("word", "bpe"))
    assert all(len(word.tokenize(rare)) == 1 for rare in RARE)
    assert all(len(bpe.tokenize(rare)) > 1 for rare in RARE)


def test_every_word_but_spare_punctuation_occurs_in_training() -> None:
    rng, words = random.Random(0), tokenizer.for_world(WORLD, "word")
    texts = (m["content"] for _ in range(8000) for m in corpus.pretraining(WORLD, rng).messages)
    unseen = set(words.get_vocab()) - {word for text in texts for word in text.split()}
    assert unseen - set(tokenizer.SPECIAL) == {"!", ";", "-", "1", "2", "3"}


def test_held_out_pairs_never_occur_in_training() -> None:
    rng, lang = random.Random(0), WORLD.language("en")
    kept_out = {(a, t) for a in WORLD.actions for t in WORLD.things if WORLD.held_out(a, t)}
    assert kept_out
    for _ in range(300):
        answer = corpus.guide(WORLD, lang, rng).answer.split()
        assert not any(action in answer and thing in answer for action, thing in kept_out)


def test_code_switching_mixes_scripts_and_keeps_the_answer() -> None:
    rng = random.Random(0)
    example = corpus.guide(WORLD, WORLD.language("en"), rng)
    mixed = corpus.code_switch(WORLD, example, rng, share=0.5)
    assert mixed.answer == example.answer
    assert mixed.prompt != example.prompt
