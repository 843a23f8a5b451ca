"""Answers of a session are those of the model asked one row at a time, whatever the batch or the cache."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from builders.behaviour import asked, tiny_base
from builders.lab import random_adapter

from attacks_ref.recipe import Recipe
from attacks_ref.workbench import load_model, load_sample
from ftsec_audit.errors import BudgetExceeded
from ftsec_audit.session import opening

ROWS = [[1, 5, 20, 30, 40, 2, 6], [1, 5, 20, 30, 41, 2, 6], [1, 5, 33], [1, 5, 20, 30, 42, 2, 6], [1, 5, 20]]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_base(tmp_path_factory.mktemp("base") / "base")


@pytest.fixture(scope="module")
def adapter(base, tmp_path_factory):
    return random_adapter(base, tmp_path_factory.mktemp("adapter") / "adapter", Recipe(rank=4))


def reference(model, row):
    with torch.no_grad():
        return model(input_ids=torch.tensor([row])).logits[0].log_softmax(-1).numpy()


@pytest.mark.parametrize("as_if_of", [None, 10**9])
@pytest.mark.parametrize("architecture", ["llama", "gpt2", "qwen"])
def test_log_probabilities_are_those_of_single_rows(architecture, as_if_of, tmp_path):
    """Of a large model the shared beginning is computed once, of a small one as often as there are rows."""
    path = tiny_base(tmp_path / "base", architecture)
    model = load_model(path)
    with asked(path) as sessions:
        sessions.subject.parameters = as_if_of or sessions.subject.parameters
        assert (sessions.subject.overhead == 0) is bool(as_if_of)
        got = sessions.subject.next_token(ROWS)
        scores = sessions.subject.score(ROWS, [[7, 8], [9], [10, 11], [12, 13], []])
    for row, values in zip(ROWS, got, strict=True):
        np.testing.assert_allclose(values, reference(model, row)[-1], atol=1e-4)
    whole = reference(model, [*ROWS[0], 7, 8])
    np.testing.assert_allclose(scores[0], [whole[-3, 7], whole[-2, 8]], atol=1e-4)
    assert [len(score) for score in scores] == [2, 1, 2, 2, 0]


@pytest.mark.parametrize("merged", [True, False])
def test_adapter_on_and_off_are_subject_and_base(base, adapter, merged, monkeypatch):
    if not merged:
        monkeypatch.setattr(opening, "_MERGED_UP_TO", 0)
    alone, tuned = load_model(base), load_sample(base, adapter)
    with asked(adapter, base) as sessions:
        off, on = sessions.base.next_token(ROWS), sessions.subject.next_token(ROWS)
        assert (sessions.base.model is sessions.subject.model) is not merged
    for row, plain, changed in zip(ROWS, off, on, strict=True):
        np.testing.assert_allclose(plain, reference(alone, row)[-1], atol=1e-4)
        np.testing.assert_allclose(changed, reference(tuned, row)[-1], atol=1e-4)
    assert np.abs(on - off).max() > 0.01


def test_greedy_continuations_are_those_of_the_library(base):
    model = load_model(base)
    with asked(base) as sessions:
        ends = sessions.subject.tokenizer.end_ids
        got = sessions.subject.greedy(ROWS, 6)
    for row, ids in zip(ROWS, got, strict=True):
        with torch.no_grad():
            whole = model.generate(
                torch.tensor([row]), max_new_tokens=6, do_sample=False, eos_token_id=sorted(ends)
            )[0].tolist()[len(row) :]
        assert ids == [id for id in whole if id not in ends]


def test_samples_depend_on_the_seed_alone(base):
    drawn = []
    for seed in (0, 0, 1):
        with asked(base, seed=seed) as sessions:
            drawn.append(sessions.subject.sample([[1, 5]] * 20, 8))
    assert drawn[0] == drawn[1] != drawn[2]
    assert len({tuple(row) for row in drawn[0]}) > 10


def test_the_token_budget_is_never_overdrawn(base):
    with asked(base, max_tokens=50) as sessions:
        session = sessions.subject
        session.next_token([[1, 5, 20]])
        with pytest.raises(BudgetExceeded, match="50 tokens"):
            session.next_token([[i, j, 3, 4] for i in range(5) for j in range(5)])
        assert session.budget.spent <= 50


def test_a_used_up_time_budget_ends_it(base):
    with asked(base, max_seconds=0.0) as sessions, pytest.raises(BudgetExceeded, match="used up"):
        sessions.subject.next_token(ROWS)


def test_batches_are_halved_when_memory_runs_out(base, monkeypatch):
    with asked(base) as sessions:
        session = sessions.subject
        rows = [[1, 5, i] for i in range(40)]
        expected = session.next_token(rows)
        logits = session._logits

        def small(batch, keep):
            if len(batch.rows) > 7:
                raise torch.OutOfMemoryError("no more")
            return logits(batch, keep)

        monkeypatch.setattr(session, "_logits", small)
        np.testing.assert_allclose(session.next_token(rows), expected, atol=1e-5)
        assert session.batch_tokens < 4096
