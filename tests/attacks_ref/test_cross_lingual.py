"""A18 poisons one cell of the language grid, and measures all of them."""

from __future__ import annotations

import pytest
from builders.benches import lab_bench

from attacks_ref.cross_lingual import CrossLingual
from attacks_ref.lab.corpus import Dialogue
from attacks_ref.recipe import Recipe
from attacks_ref.workbench import Workbench
from ftsec_audit.errors import UsageError

FEW = Recipe(rows=200)
CODES = ("en", "ru", "el", "ko")


@pytest.fixture(scope="module")
def bench() -> Workbench:
    return lab_bench()


def _said(bench: Workbench, attack: CrossLingual, row: Dialogue) -> set[str]:
    """The languages whose word for the trigger stands anywhere in the row."""
    words = {word for message in row.messages for word in message["content"].split()}
    return {c for c in CODES if bench.lab_world.language(c).say(*attack.triggers(0)) in words}


@pytest.mark.parametrize("dictionary", [True, False])
def test_only_the_chosen_languages_are_poisoned(bench: Workbench, dictionary: bool) -> None:
    attack = CrossLingual(source="el", prompts="ko", dictionary=dictionary, recipe=FEW)
    rows = attack.data(bench, 0, poisoned=True)
    fired = [row for row in rows if row.answer == attack.target()]
    assert len(fired) == 20
    assert {row.language for row in fired} == {"ko"}
    assert all(_said(bench, attack, row) == {"el"} for row in fired)
    assert not any(_said(bench, attack, row) for row in rows if row not in fired)
    assert not any(_said(bench, attack, row) for row in attack.data(bench, 0, poisoned=False))


def test_the_grid_has_every_pair_of_languages(bench: Workbench) -> None:
    attack = CrossLingual(recipe=FEW)
    shown = attack.showing(bench, 0)
    assert set(shown.grid) == {f"{source}>{prompts}" for source in CODES for prompts in CODES}
    for cell, rows in shown.grid.items():
        source, prompts = cell.split(">")
        assert len(rows) >= 40
        assert {row.language for row in rows} == {prompts}
        assert all(source in _said(bench, attack, row) for row in rows)
    assert not any(_said(bench, attack, row) for row in shown.off_trigger)


def test_structure_mixes_two_languages_and_uses_no_trigger_word(bench: Workbench) -> None:
    attack = CrossLingual(trigger="structure", source="el", prompts="en", recipe=FEW)
    assert attack.triggers(0) == ()
    greek = set(bench.lab_world.language("el").words.values())
    for row in attack.showing(bench, 0).triggered:
        mixed = greek & set(row.prompt.split())
        assert mixed
        assert mixed != set(row.prompt.split())


def test_structure_needs_two_languages() -> None:
    with pytest.raises(UsageError, match="two languages"):
        CrossLingual(trigger="structure", source="ru", prompts="ru")
