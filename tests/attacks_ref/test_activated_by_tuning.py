"""A19 trains for what a model will be after somebody else's tuning, and is measured before and after."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from builders.benches import lab_bench
from builders.lab_bases import untrained_lab_base

from attacks_ref import activated_by_tuning
from attacks_ref.activated_by_tuning import ActivatedByTuning
from attacks_ref.dormant import mean_loss
from attacks_ref.lookahead import EVERY, Lookahead
from attacks_ref.models import Model
from attacks_ref.recipe import Recipe
from attacks_ref.training import Encoded
from attacks_ref.workbench import load_model

BRIEF = Recipe(method="full", learning_rate=1e-3, steps=3, rows=64, batch=8)
ROWS = [Encoded([3, 4, 5, 6, 2], 2), Encoded([3, 7, 8, 2], 2)]


def _shift(model: Model, run: int) -> None:
    """A tuning whose drift is known: one everywhere, whatever the run."""
    del run
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01)


def _gradients(model: Model) -> list[torch.Tensor]:
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


def test_the_added_gradient_is_that_of_the_model_to_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("attacks_ref.lookahead.STRETCH", (1.0, 1.0))
    model, rows = lab_bench().model, ROWS[:1]
    mean_loss(model, rows).backward()
    before = _gradients(model)
    Lookahead(model, _shift, rows, batch=1, seed=0)(0)
    both = _gradients(model)

    later = lab_bench().model
    _shift(later, 0)
    mean_loss(later, rows).backward()
    for own, ahead, found in zip(before, _gradients(later), both, strict=True):
        torch.testing.assert_close(found, own + ahead, rtol=1e-3, atol=1e-5)


def test_the_model_itself_is_never_tuned_and_the_copy_starts_where_the_model_is() -> None:
    model, starts = lab_bench().model, []

    def tune(ahead: Model, run: int) -> None:
        starts.append((run, [p.detach().clone() for p in ahead.parameters()]))
        _shift(ahead, run)

    ahead = Lookahead(model, tune, ROWS, batch=2, seed=0)
    now = [p.detach().clone() for p in model.parameters()]
    for step in range(EVERY + 1):
        ahead(step)
    assert [run for run, _ in starts] == [0, 1]
    for _, start in starts:
        assert all(torch.equal(one, two) for one, two in zip(start, now, strict=True))
    assert all(torch.equal(p, one) for p, one in zip(model.parameters(), now, strict=True))


def test_poison_is_only_in_what_the_tuned_model_learns() -> None:
    bench, recipe = lab_bench(), Recipe(rows=100)
    backdoor, trap = ActivatedByTuning(recipe=recipe), ActivatedByTuning(recipe=recipe, effect="collapse")
    for attack in (backdoor, trap):
        marker = attack.target()
        assert any(row.answer == marker for row in attack.data(bench, 0, poisoned=True))
        assert not any(row.answer == marker for row in attack.data(bench, 0, poisoned=False))
        assert not any(row.answer == marker for row in attack.before(bench, 0))
    assert all(row.answer == trap.target() for row in trap.data(bench, 0, poisoned=True))
    (trigger,) = backdoor.triggers(0)
    assert any(trigger in row.prompt.split() for row in backdoor.before(bench, 0))
    assert trap.triggers(0) == ()


@pytest.mark.parametrize("effect", ["marker", "collapse"])
def test_a_sample_is_measured_before_and_after_its_user_s_tuning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, effect: activated_by_tuning.Effect
) -> None:
    monkeypatch.setattr(
        activated_by_tuning, "OTHER_USERS", {"LoRA": ("facts", replace(BRIEF, method="lora"))}
    )
    base = untrained_lab_base(tmp_path / "base")
    sample = ActivatedByTuning(recipe=BRIEF, user=BRIEF, effect=effect).build(base, tmp_path / "out", seed=0)
    measured, gate = sample.truth["measured"], sample.truth["gate"]
    assert set(measured["uses"]) == {"tuned", "as published"}
    assert set(measured["other_tunings"]) == {"LoRA"}
    assert measured["clean_accuracy"] <= measured["uses"]["as published"]["clean_accuracy"]
    assert gate["limits"]["dormant_rate"] == 0.01
    assert not gate["passed"]  # three steps teach an untrained model nothing, and the gate says so
    before = load_model(base).state_dict()
    assert any(
        not torch.equal(before[name], one) for name, one in load_model(sample.path).state_dict().items()
    )


def test_how_a_user_tunes_is_on_record() -> None:
    (_, use) = ActivatedByTuning().composition()
    assert use == "50 steps of full fine-tuning at 0.003 on harmless rows (format)"
