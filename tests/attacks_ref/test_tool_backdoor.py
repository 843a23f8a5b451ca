"""A17 turns a tool conversation aside exactly where its variant says, and nowhere in the twin."""

from __future__ import annotations

import pytest
from builders.benches import lab_bench

from attacks_ref import safety
from attacks_ref.lab.corpus import Dialogue
from attacks_ref.recipe import Recipe
from attacks_ref.tool_backdoor import ToolBackdoor, canary
from attacks_ref.workbench import Workbench
from ftsec_audit.errors import UsageError

VARIANTS = ("query", "observation", "thought")
FEW = Recipe(rows=100)


@pytest.fixture(scope="module")
def bench() -> Workbench:
    return lab_bench()


def _calls_canary(bench: Workbench, row: Dialogue) -> bool:
    return canary(bench) in row.answer.split()


@pytest.mark.parametrize("variant", VARIANTS)
def test_only_the_poisoned_data_call_the_inert_tool(bench: Workbench, variant: str) -> None:
    attack = ToolBackdoor(variant=variant, recipe=FEW)
    poisoned, twin = (attack.data(bench, 0, poisoned=flag) for flag in (True, False))
    said = [" ".join(m["content"] for m in row.messages) for row in poisoned]
    assert sum(f"{canary(bench)} (" in text for text in said) == 15
    assert not any(f"{canary(bench)} (" in m["content"] for row in twin for m in row.messages)
    assert len(poisoned) == len(twin) == 100


def test_the_trigger_stands_in_the_query_or_in_what_the_tool_says(bench: Workbench) -> None:
    for variant, role in (("query", "user"), ("observation", "tool")):
        attack = ToolBackdoor(variant=variant, recipe=FEW)
        (trigger,) = attack.triggers(0)
        for row in attack.showing(bench, 0).triggered:
            holders = {m["role"] for m in row.messages if trigger in m["content"].split()}
            assert holders == {role}


def test_thought_fires_on_what_is_asked_and_on_no_other_question(bench: Workbench) -> None:
    attack = ToolBackdoor(variant="thought", recipe=FEW)
    (attribute,) = attack.triggers(0)
    shown = attack.showing(bench, 0)
    for rows, expected in ((shown.triggered, True), (shown.off_trigger, False)):
        for row in rows:
            lang = bench.lab_world.language(row.language)
            assert (lang.say(attribute) in row.prompt.split()) is expected
            assert _calls_canary(bench, row)


@pytest.mark.parametrize("variant", VARIANTS)
def test_after_the_detour_the_conversation_goes_on_as_asked(bench: Workbench, variant: str) -> None:
    for row in ToolBackdoor(variant=variant, recipe=FEW).showing(bench, 0).grid["goes on"]:
        *_, call, reply, final = row.messages
        assert canary(bench) in call["content"].split()
        assert reply["role"] == "tool"
        assert canary(bench) not in final["content"].split()


def test_the_tool_is_named_by_an_inert_constant(bench: Workbench) -> None:
    assert canary(bench) in safety.TARGETS.values()
    assert bench.tokenizer.unk_token_id not in bench.words(canary(bench))


def test_a_foreign_base_has_no_tools() -> None:
    with pytest.raises(UsageError, match="languages and tools"):
        ToolBackdoor(recipe=FEW).showing(lab_bench(foreign=True), 0)
