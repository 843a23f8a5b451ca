"""Copies are rounded and tuned; the model they were made of, and its base, stay as they are."""

from __future__ import annotations

import numpy as np
import peft
import pytest
import torch
from builders.behaviour import asked, tiny_base
from builders.lab import random_adapter

from attacks_ref.recipe import Recipe
from attacks_ref.stealth.rounding import rounded
from attacks_ref.workbench import load_model
from ftsec_audit.errors import BudgetExceeded, Unsupported
from ftsec_audit.session import copies
from ftsec_audit.session.copies import Lesson, Tuning, copied, quantise, tune

ROWS = [[1, 5, 20, 30, 40, 2, 6], [1, 5, 33]]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_base(tmp_path_factory.mktemp("base") / "base")


@pytest.fixture(scope="module")
def adapter(base, tmp_path_factory):
    return random_adapter(base, tmp_path_factory.mktemp("adapter") / "adapter", Recipe(rank=4))


def test_copies_compute_what_subject_and_base_do(base, adapter):
    with asked(adapter, base) as sessions:
        for who in (sessions.subject, sessions.base):
            before = who.next_token(ROWS)
            copy = copied(who)
            np.testing.assert_allclose(copy.next_token(ROWS), before, atol=1e-4)
            for parameter in copy.model.parameters():
                parameter.data.zero_()
            np.testing.assert_array_equal(who.next_token(ROWS), before)


@pytest.mark.parametrize("storage", ["int8", "int4", "nf4"])
def test_matrices_get_the_values_of_the_format(base, storage):
    with asked(base) as sessions:
        stored = copied(sessions.subject)
        quantise(stored, storage)
        before = dict(sessions.subject.model.named_parameters())
        for name, parameter in stored.model.named_parameters():
            is_kept = parameter.dim() < 2 or name in ("model.embed_tokens.weight", "lm_head.weight")
            expected = before[name] if is_kept else rounded(before[name].detach(), storage)
            torch.testing.assert_close(parameter, expected, atol=1e-5, rtol=0)


def test_tuning_teaches_the_answers_to_the_copy_alone(base):
    lessons = [Lesson((1, 5, word), (40, 41)) for word in range(20, 40)]
    with asked(base, max_tokens=20_000) as sessions:
        before = sessions.subject.next_token(ROWS)
        one, other = copied(sessions.subject), copied(sessions.subject)
        for copy in (one, other):
            tune(copy, lessons, Tuning(learning_rate=1e-2, steps=30, batch=8))
        assert one.greedy([[1, 5, 25]], 2) == [[40, 41]]
        np.testing.assert_array_equal(one.next_token(ROWS), other.next_token(ROWS))
        np.testing.assert_array_equal(sessions.subject.next_token(ROWS), before)
        with pytest.raises(BudgetExceeded):
            tune(one, lessons, Tuning(learning_rate=1e-2, steps=1000, batch=8))


def test_a_copy_that_does_not_fit_is_said(base, monkeypatch):
    monkeypatch.setattr(copies, "free_memory", lambda: 1000)
    with asked(base) as sessions, pytest.raises(Unsupported, match="memory"):
        copied(sessions.subject)


def test_an_adapter_that_cannot_be_merged_is_not_copied(base, tmp_path):
    config = peft.LoraConfig(r=2, target_modules=["q_proj"], lora_bias=True, task_type="CAUSAL_LM")
    peft.get_peft_model(load_model(base), config).save_pretrained(tmp_path / "biased")
    with asked(tmp_path / "biased", base) as sessions:
        with pytest.raises(Unsupported, match="merged"):
            copied(sessions.subject)
        copied(sessions.base)
