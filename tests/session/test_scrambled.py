"""A scrambled update computes something else of the same size, and leaves no trace."""

from __future__ import annotations

import numpy as np
import pytest
from builders.behaviour import asked, tiny_base
from builders.lab import random_adapter

from attacks_ref.recipe import Recipe
from attacks_ref.workbench import load_model
from ftsec_audit.errors import Unsupported
from ftsec_audit.session.scrambled import scrambled

ROWS = [[1, 5, 20, 30], [1, 5, 33]]


@pytest.fixture
def base(tmp_path):
    return tiny_base(tmp_path / "base")


def subject(kind, base, out):
    if kind != "checkpoint":
        return random_adapter(base, out, Recipe(rank=kind))
    model = load_model(base)
    model.model.layers[0].mlp.up_proj.weight.data.mul_(1.5)
    model.save_pretrained(out)
    return out


@pytest.mark.parametrize("kind", [8, 1, "checkpoint"])
def test_it_differs_until_it_ends(kind, base, tmp_path):
    with asked(subject(kind, base, tmp_path / "subject"), base) as sessions:
        session, rng = sessions.subject, np.random.default_rng(0)
        before, theirs = session.next_token(ROWS), sessions.base.next_token(ROWS)
        with scrambled(session, sessions.base, rng):
            during = session.next_token(ROWS)
            np.testing.assert_array_equal(sessions.base.next_token(ROWS), theirs)
        np.testing.assert_array_equal(session.next_token(ROWS), before)
    assert np.abs(during - before).max() > 1e-4
    assert np.abs(during - theirs).max() > 1e-4


def test_nothing_to_scramble_is_said(base):
    with asked(base, base) as sessions:
        context = scrambled(sessions.subject, sessions.base, np.random.default_rng(0))
        with pytest.raises(Unsupported, match="permuted"), context:
            pass
