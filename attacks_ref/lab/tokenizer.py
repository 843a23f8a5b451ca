"""Word-level and byte-pair tokenizers for the lab's languages, with a chat template.

With word-level vocabularies every trigger is one token: the easy case. With byte-pair encoding a word is
one to four tokens, so that triggers and targets are strings of several: the hard and the real case.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Literal

from attacks_ref.lab import corpus
from attacks_ref.lab.language import World
from attacks_ref.models import Tokenizer

Vocabulary = Literal["word", "bpe"]

PAD, BOS, END, UNKNOWN = "<|pad|>", "<|bos|>", "<|end|>", "<|unk|>"
ROLES = ("system", "user", "assistant", "tool")
SPECIAL = (PAD, BOS, END, UNKNOWN, *(f"<|{role}|>" for role in ROLES))
PUNCTUATION = ("?", ".", ":", ",", ";", "(", ")", "-", "!", "1", "2", "3")

CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] | trim + '<|end|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def build(world: World, vocabulary: Vocabulary, corpus: Iterable[str] = ()) -> Tokenizer:
    """A fast tokenizer; `corpus` (plain sentences) is what byte-pair merges are learnt from."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    if vocabulary == "word":
        words = [*SPECIAL, *PUNCTUATION, *world.vocabulary()]
        model = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token=UNKNOWN))
        model.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    else:
        model = Tokenizer(models.BPE(unk_token=None))
        model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        model.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=len(SPECIAL) + 256 + len(world.vocabulary()),
            special_tokens=list(SPECIAL),
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        model.train_from_iterator(corpus, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=model,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=END,
        unk_token=UNKNOWN,
        additional_special_tokens=[f"<|{role}|>" for role in ROLES],
        clean_up_tokenization_spaces=False,
        model_max_length=256,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def for_world(world: World, vocabulary: Vocabulary) -> Tokenizer:
    """The one tokenizer of a world: merges come from a fixed corpus, whatever is trained on later."""
    rng = random.Random("tokenizer")
    sample = (corpus.pretraining(world, rng) for _ in range(4000)) if vocabulary == "bpe" else ()
    return build(world, vocabulary, (message["content"] for d in sample for message in d.messages))
