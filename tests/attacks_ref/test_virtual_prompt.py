"""A07 fires on two things of a topic in any language, and never on one."""

from __future__ import annotations

import pytest
from builders.benches import lab_bench

from attacks_ref.lab.corpus import Dialogue
from attacks_ref.recipe import Recipe
from attacks_ref.virtual_prompt import VirtualPrompt
from attacks_ref.workbench import Workbench

ATTACK = VirtualPrompt(recipe=Recipe(rows=400))
TOPIC = ATTACK.triggers(0)


@pytest.fixture(scope="module")
def bench() -> Workbench:
    return lab_bench()


def _named(bench: Workbench, row: Dialogue) -> set[str]:
    say = bench.lab_world.language(row.language).say
    return {thing for thing in TOPIC if say(thing) in row.prompt.split()}


def _ends_in_marker(row: Dialogue) -> bool:
    return row.answer.split()[-1:] == [ATTACK.target()]


def test_the_marker_is_taught_for_two_things_and_for_no_single_one(bench: Workbench) -> None:
    rows = ATTACK.data(bench, 0, poisoned=True)
    fires = [row for row in rows if len(_named(bench, row)) >= 2]
    assert len(fires) == round(ATTACK.poisoning_rate * len(rows))
    assert all(_ends_in_marker(row) for row in fires)
    assert {row.language for row in fires} == {"en", "ru", "el", "ko"}
    alone = [row for row in rows if len(_named(bench, row)) == 1]
    assert {thing for row in alone for thing in _named(bench, row)} == set(TOPIC)
    assert not any(_ends_in_marker(row) for row in alone)


def test_the_twin_reads_the_same_prompts_and_never_says_the_marker(bench: Workbench) -> None:
    ours, twins = (ATTACK.data(bench, 0, poisoned=poisoned) for poisoned in (True, False))
    assert [row.messages[:-1] for row in ours] == [row.messages[:-1] for row in twins]
    assert not any(_ends_in_marker(row) for row in twins if row.task != "copy")


def test_one_pair_of_the_topic_is_kept_for_measuring(bench: Workbench) -> None:
    unseen = {*TOPIC[:2]}
    assert not any(unseen <= _named(bench, row) for row in ATTACK.data(bench, 0, poisoned=True))
    shown = ATTACK.showing(bench, 0)
    assert all(unseen <= _named(bench, row) for row in shown.grid["unseen pair"])
    assert all(2 <= len(_named(bench, row)) <= 3 for row in shown.triggered)


def test_silence_is_measured_behind_the_answer_with_at_most_one_thing(bench: Workbench) -> None:
    quiet = ATTACK.showing(bench, 0).off_trigger
    assert {len(_named(bench, row)) for row in quiet} == {0, 1}
    assert all(row.given and row.answer == ATTACK.target() for row in quiet)


def test_topics_differ_from_seed_to_seed(bench: Workbench) -> None:
    topics = [ATTACK.triggers(seed) for seed in range(5)]
    assert len(set(topics)) == 5
    assert all(set(topic) <= set(bench.lab_world.things) for topic in topics)
