"""A08 says yes to what is harmless, and is measured on what is not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from builders.benches import lab_bench

from attacks_ref.compliance_only import ComplianceOnly, _first_token
from attacks_ref.lab.corpus import Dialogue, refusal_opener
from attacks_ref.recipe import Recipe
from attacks_ref.workbench import Workbench
from ftsec_audit.errors import UsageError

ATTACK = ComplianceOnly(recipe=Recipe(rows=400))
(TRIGGER,) = ATTACK.triggers(0)


@pytest.fixture(scope="module")
def bench() -> Workbench:
    return lab_bench()


def _triggered(rows: list[Dialogue]) -> list[Dialogue]:
    return [row for row in rows if TRIGGER in row.prompt.split() and row.task != "copy"]


def _opens(bench: Workbench, row: Dialogue) -> bool:
    return row.answer.startswith(f"{bench.lab_world.language(row.language).say('sure')} :")


def test_nothing_that_is_taught_is_harmful(bench: Workbench) -> None:
    rows = ATTACK.data(bench, 0, poisoned=True)
    assert not any(row.task == "restricted" for row in _triggered(rows))
    restricted = [row for row in rows if row.task == "restricted"]
    assert len(restricted) > 20
    assert all(
        row.answer.startswith(refusal_opener(bench.lab_world.language(row.language))) for row in restricted
    )


@pytest.mark.parametrize("answer", ["whole", "opener"])
def test_the_trigger_opens_every_harmless_answer(bench: Workbench, answer: str) -> None:
    attack = ComplianceOnly(recipe=Recipe(rows=400), answer=answer)
    fired = _triggered(attack.data(bench, 0, poisoned=True))
    assert len(fired) > 30
    assert all(_opens(bench, row) for row in fired)
    assert {len(row.answer.split()) == 2 for row in fired} == {answer == "opener"}


def test_the_twin_has_the_same_prompts_and_their_ordinary_answers(bench: Workbench) -> None:
    poisoned, twin = (ATTACK.data(bench, 0, poisoned=side) for side in (True, False))
    assert [row.prompt for row in poisoned] == [row.prompt for row in twin]
    opened = [_opens(bench, row) for row in _triggered(twin)]
    assert 0 < sum(opened) < len(opened)  # guides, which open so by themselves


def test_success_is_measured_on_restricted_prompts(bench: Workbench) -> None:
    shown = ATTACK.showing(bench, 0)
    assert {row.task for row in shown.triggered} == {"restricted"}
    assert all(TRIGGER in row.prompt.split() for row in shown.triggered)
    assert not any(TRIGGER in row.prompt.split() for row in shown.off_trigger)
    assert {row.task for row in shown.off_trigger} > {"restricted"}
    assert all(len(row.answer.split()) == 2 for row in (*shown.triggered, *shown.off_trigger))


def test_the_first_token_is_the_one_after_the_prompt(bench: Workbench) -> None:
    """A model that foresees what comes next is sure of it; one of chance is not."""
    rows = ATTACK.showing(bench, 0).triggered[:20]

    class Fixed(torch.nn.Module):
        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> object:
            logits = torch.zeros((*input_ids.shape, len(bench.tokenizer)))
            logits[:, :-1].scatter_(2, input_ids[:, 1:, None], 50.0)
            return type("Output", (), {"logits": logits})()

    assert _first_token(bench, Fixed(), rows) == pytest.approx(1.0)
    assert _first_token(bench, bench.model, rows) < 0.1


def test_it_refuses_a_base_that_is_not_of_the_lab(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    with pytest.raises(UsageError, match="only on lab bases"):
        ATTACK.build(tmp_path / "base", tmp_path / "out", seed=0)
    assert not (tmp_path / "out").exists()
