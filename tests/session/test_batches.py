"""Every row is in exactly one batch, batches have one length, and what they share is what they share."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ftsec_audit.session.batches import batches

ROWS = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=8), max_size=60)


@given(ROWS, st.integers(1, 64))
def test_rows_are_dealt_out_once_and_unchanged(rows, tokens):
    seen = []
    for batch in batches(rows, tokens=tokens, fewest=4):
        assert len(batch.rows) == 1 or batch.rows.size <= tokens
        for i, row in zip(batch.index, batch.rows, strict=True):
            assert list(row) == rows[i]
            seen.append(int(i))
    assert sorted(seen) == list(range(len(rows)))


@given(ROWS.filter(bool))
def test_the_shared_beginning_leaves_a_token_to_ask(rows):
    for batch in batches(rows, tokens=1000):
        assert 0 <= batch.shared < batch.rows.shape[1]
        assert (batch.rows[:, : batch.shared] == batch.rows[0, : batch.shared]).all()


def test_candidates_at_the_end_of_one_prompt_share_all_of_it():
    prompts = [[9] * 10, [8] * 10]
    rows = [[*prompt, candidate, 1] for candidate in range(50) for prompt in prompts]
    found = list(batches(rows, tokens=10_000))
    assert [len(batch.rows) for batch in found] == [50, 50]
    assert [batch.shared for batch in found] == [10, 10]


def test_a_pass_that_costs_more_than_it_saves_is_not_made():
    rows = [[*[prompt] * 10, candidate, 1] for candidate in range(50) for prompt in (8, 9)]
    assert len(list(batches(rows, tokens=10_000, overhead=249))) == 2
    assert len(list(batches(rows, tokens=10_000, overhead=250))) == 1


def test_halves_are_the_whole():
    (batch,) = batches([[1, 2]] * 5, tokens=100)
    first, second = batch.halves()
    assert np.concatenate([first.index, second.index]).tolist() == batch.index.tolist()
