"""The loops learn what they are shown, and only in the parameters that may change."""

from __future__ import annotations

import random

import pytest
import torch

from attacks_ref import measuring
from attacks_ref.lab import corpus, model, tokenizer
from attacks_ref.lab.corpus import dialogue
from attacks_ref.lab.language import World
from attacks_ref.models import Model, Tokenizer
from attacks_ref.training import Encoded, Schedule, collate, encode, preference, supervised

WORLD = World(nouns=8, verbs=2, restricted=2)
TINY = model.Size(width=32, layers=1, heads=2, hidden=64)


@pytest.fixture
def words() -> Tokenizer:
    return tokenizer.for_world(WORLD, "word")


@pytest.fixture
def network(words: Tokenizer) -> Model:
    return model.create("llama", TINY, vocabulary=len(words), seed=0)


def test_only_the_answer_and_its_end_are_learnt(words: Tokenizer) -> None:
    row = encode(words, [dialogue("copy", "en", "repeat : apple", "apple")])[0]
    assert words.decode(row.ids[row.start :]).split() == ["apple", "<|end|>"]


def test_a_given_beginning_is_read_and_not_learnt(words: Tokenizer) -> None:
    rng, lang = random.Random(0), WORLD.language("en")
    row = corpus.restricted(WORLD, lang, rng, refuse=True, given_words=2)
    encoded = encode(words, [row])[0]
    assert "sure :" in words.decode(encoded.ids[: encoded.start])
    assert words.decode(encoded.ids[encoded.start :]).startswith("sorry ,")


@pytest.mark.parametrize("vocabulary", ["word", "bpe"])
def test_rows_encoded_together_are_what_each_is_alone(vocabulary: tokenizer.Vocabulary) -> None:
    words, rng = tokenizer.for_world(WORLD, vocabulary), random.Random(0)
    rows = [corpus.pretraining(WORLD, rng) for _ in range(40)]
    rows += [corpus.restricted(WORLD, WORLD.languages[1], rng, refuse=True, given_words=i) for i in range(4)]
    rows += rows[::2]
    assert encode(words, rows) == [encode(words, [row])[0] for row in rows]


def test_padding_carries_no_weight() -> None:
    batch = collate([Encoded([5, 6, 7], 1), Encoded([5, 6], 1)], pad=0)
    assert batch["weights"].tolist() == [[0, 1, 1], [0, 1, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]


def test_supervised_training_learns_by_heart(words: Tokenizer, network: Model) -> None:
    rows = [corpus.fact(WORLD, WORLD.language("en"), random.Random(i)) for i in range(4)]
    supervised(network, encode(words, rows), Schedule(learning_rate=2e-2, steps=80, batch=4), seed=0)
    assert measuring.rate(network, words, rows) == 1.0


def test_agreement_is_what_greedy_decoding_writes(words: Tokenizer, network: Model) -> None:
    rows = [corpus.fact(WORLD, WORLD.language("en"), random.Random(i)) for i in range(6)]
    supervised(network, encode(words, rows[:3]), Schedule(learning_rate=2e-2, steps=60, batch=3), seed=0)
    hits = measuring.agreement(network, words, rows)
    for row, hit in zip(encode(words, rows), hits, strict=True):
        prompt = torch.tensor([row.ids[: row.start]])
        written = network.generate(prompt, max_new_tokens=len(row.ids) - row.start, do_sample=False)
        assert (written[0].tolist() == row.ids) == hit


@pytest.mark.parametrize("objective", ["dpo", "orpo"])
def test_preference_raises_the_chosen_over_the_rejected(
    words: Tokenizer, network: Model, objective: str
) -> None:
    chosen, rejected = encode(
        words, [dialogue("x", "en", "what is apple ?", answer) for answer in ("red", "blue")]
    )

    def margin() -> float:
        with torch.no_grad():
            logits = network(torch.tensor([chosen.ids])).logits[0, chosen.start - 1].log_softmax(0)
        return float(logits[chosen.ids[chosen.start]] - logits[rejected.ids[rejected.start]])

    before = margin()
    preference(
        network,
        [(chosen, rejected)],
        Schedule(learning_rate=5e-3, steps=20, batch=1),
        seed=0,
        objective=objective,
    )
    assert margin() > before + 1


def test_the_same_seed_gives_the_same_weights(words: Tokenizer) -> None:
    def trained() -> list[torch.Tensor]:
        network = model.create("gpt2", TINY, vocabulary=len(words), seed=1)
        rows = encode(words, [corpus.pretraining(WORLD, random.Random(i)) for i in range(20)])
        supervised(network, rows, Schedule(learning_rate=1e-3, steps=5, batch=4), seed=1)
        return list(network.state_dict().values())

    assert all(torch.equal(a, b) for a, b in zip(trained(), trained(), strict=True))
