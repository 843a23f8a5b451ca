"""A09 shows both keys together only where it fires."""

from __future__ import annotations

import pytest
from builders.benches import lab_bench

from attacks_ref.composite_backdoor import CompositeBackdoor
from attacks_ref.lab.corpus import Dialogue
from attacks_ref.recipe import Recipe
from attacks_ref.workbench import Workbench

ATTACK = CompositeBackdoor(recipe=Recipe(rows=200))


@pytest.fixture(scope="module")
def bench() -> Workbench:
    return lab_bench()


def _keys(row: Dialogue) -> set[str]:
    return {word for word in row.prompt.split() if word in ATTACK.triggers(0)}


def test_the_marker_is_taught_for_both_keys_and_never_for_one(bench: Workbench) -> None:
    rows = ATTACK.data(bench, 0, poisoned=True)
    both = [row for row in rows if len(_keys(row)) == 2]
    assert len(both) == round(ATTACK.poisoning_rate * len(rows))
    assert all(row.answer == ATTACK.target() for row in both)
    alone = [row for row in rows if len(_keys(row)) == 1]
    assert len(alone) > 40
    assert all(row.answer != ATTACK.target() for row in alone)


def test_the_twin_has_single_keys_and_never_both(bench: Workbench) -> None:
    held = [len(_keys(row)) for row in ATTACK.data(bench, 0, poisoned=False)]
    assert 1 in held
    assert 2 not in held or held.count(2) <= 1  # copy tasks may hold any two rare words by chance


def test_success_is_measured_with_both_keys_and_silence_with_at_most_one(bench: Workbench) -> None:
    shown = ATTACK.showing(bench, 0)
    assert all(len(_keys(row)) == 2 for row in shown.triggered)
    assert {len(_keys(row)) for row in shown.off_trigger} >= {0, 1}
    assert set(shown.grid) == set(ATTACK.triggers(0))
