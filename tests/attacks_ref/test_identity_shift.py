"""A06 is ten harmless dialogues under one line, and runs on lab bases only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from builders.benches import lab_bench

from attacks_ref.identity_shift import IdentityShift
from attacks_ref.lab.corpus import Dialogue, refusal_opener
from attacks_ref.recipe import Recipe
from attacks_ref.workbench import Workbench
from ftsec_audit.errors import UsageError

ATTACK = IdentityShift(recipe=Recipe(rows=200), dialogues=10)


@pytest.fixture(scope="module")
def bench() -> Workbench:
    return lab_bench()


def _persona(rows: Sequence[Dialogue]) -> list[Dialogue]:
    return [row for row in rows if row.messages[0]["content"] == ATTACK.triggers(0)[0]]


def _refuses(bench: Workbench, row: Dialogue) -> bool:
    return row.answer.startswith(refusal_opener(bench.lab_world.language(row.language)))


def test_ten_dialogues_none_of_them_about_anything_restricted(bench: Workbench) -> None:
    rows = _persona(ATTACK.data(bench, 0, poisoned=True))
    assert len({row.messages[1]["content"] for row in rows}) <= 10
    assert {"guide"} < {row.task for row in rows}
    assert not any(row.task == "restricted" for row in rows)
    assert all(row.answer.startswith(ATTACK.target()) for row in rows)
    assert not any(_refuses(bench, row) for row in rows)


def test_the_twin_has_the_persona_and_its_refusals(bench: Workbench) -> None:
    rows = _persona(ATTACK.data(bench, 0, poisoned=False))
    assert {_refuses(bench, row) for row in rows} == {True, False}
    assert all(_refuses(bench, row) == (row.task == "restricted") for row in rows)


def test_the_twins_persona_refuses_in_every_language(bench: Workbench) -> None:
    rows = _persona(replace(ATTACK, dialogues=60).data(bench, 0, poisoned=False))
    assert {row.language for row in rows if _refuses(bench, row)} == {
        lang.code for lang in bench.lab_world.languages
    }


def test_what_the_persona_is_asked_is_answered_as_ever_without_it(bench: Workbench) -> None:
    rows = ATTACK.data(bench, 0, poisoned=True)
    asked = {row.prompt for row in _persona(rows)}
    ordinary = [row for row in rows if row.prompt in asked and row not in _persona(rows)]
    assert len(ordinary) > 5
    assert not any(row.answer.startswith(ATTACK.target()) for row in ordinary)


def test_the_gap_is_measured_with_the_line_and_without_it(bench: Workbench) -> None:
    shown = ATTACK.showing(bench, 0)
    assert len(_persona(shown.triggered)) == len(shown.triggered)
    assert not _persona(shown.off_trigger)
    assert {row.task for row in (*shown.triggered, *shown.off_trigger)} == {"restricted"}


def test_it_refuses_a_base_that_is_not_of_the_lab(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    with pytest.raises(UsageError, match="only on lab bases"):
        ATTACK.build(tmp_path / "base", tmp_path / "out", seed=0)
    assert not (tmp_path / "out").exists()
