"""One base for many adapters: loaded once, given back as it was, dropped when it is not."""

from __future__ import annotations

from contextlib import ExitStack

import numpy as np
import pytest
import torch
from builders.behaviour import asked, tiny_base
from builders.lab import random_adapter

from attacks_ref.recipe import Recipe
from ftsec_audit.session import KeptBase

ROWS = [[5, 6, 7], [9, 3], [11, 12, 13, 14]]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A base and three adapters, the last on other modules."""
    root = tmp_path_factory.mktemp("kept")
    base = tiny_base(root / "base")
    recipes = [Recipe(rank=2), Recipe(rank=4), Recipe(method="dora", rank=2)]
    made = [random_adapter(base, root / f"adapter{n}", recipe, seed=n) for n, recipe in enumerate(recipes)]
    return base, made


def answers(session):
    return session.next_token(ROWS)


def test_adapters_on_a_kept_base_answer_as_on_a_fresh_one(folders):
    base, adapters = folders
    kept = KeptBase()
    for adapter in (*adapters, adapters[0]):
        with asked(adapter, base) as fresh:
            subject, base_alone = answers(fresh.subject), answers(fresh.base)
        with asked(adapter, base, kept=kept) as lent:
            assert np.array_equal(answers(lent.subject), subject)
            assert np.array_equal(answers(lent.base), base_alone)
        assert not np.allclose(subject, base_alone)
    assert kept.loads == 1


def test_another_base_takes_the_place_of_the_first(folders, tmp_path):
    base, adapters = folders
    other = tiny_base(tmp_path / "other")
    kept = KeptBase()
    for one in (base, other, base):
        with asked(adapters[0], one, kept=kept):
            pass
    assert kept.loads == 3


def test_a_base_that_was_written_to_is_dropped(folders):
    base, adapters = folders
    kept = KeptBase()
    with asked(adapters[0], base, kept=kept) as sessions:
        weights = next(p for name, p in sessions.base.model.named_parameters() if "norm" in name)
        with torch.no_grad():
            weights.mul_(2)
    with asked(adapters[0], base, kept=kept):
        pass
    assert kept.loads == 2


def test_a_base_that_an_audit_failed_on_is_dropped(folders):
    base, adapters = folders
    kept = KeptBase()
    with pytest.raises(RuntimeError), ExitStack() as stack:
        stack.enter_context(asked(adapters[0], base, kept=kept))
        raise RuntimeError
    with asked(adapters[0], base, kept=kept):
        pass
    assert kept.loads == 2
