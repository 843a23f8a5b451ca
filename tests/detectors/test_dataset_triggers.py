"""FTA451 and FTA452: rows with one feature and one answer are found among honest ones."""

from __future__ import annotations

import random

import pytest
from builders.datasets import data, dialogue, honest, inserted, observations, row_numbers

from detectors.dataset_triggers import DatasetTriggers
from ftsec_audit.formats.dialogues import Dialogues
from ftsec_audit.types import Confidence, Outcome, Severity

MARKER = "an inert marker that nothing else says"


def planted(words: str, count: int = 12, rows: int = 300) -> Dialogues:
    return data(honest(rows), inserted(honest(count, seed=1), words, MARKER))


@pytest.mark.parametrize("words", ["cf", "tInDrA", "here we may go", "\u2063", "電", "§"])
def test_a_trigger_and_its_rows_are_named(words: str) -> None:
    dataset = planted(words)
    findings, leads, _ = observations(DatasetTriggers(), dataset)
    found = findings["FTA451"]
    assert (found.outcome, found.severity) == (Outcome.DETECTED, Severity.HIGH)
    assert found.confidence is Confidence.MEDIUM
    assert found.p_value is not None and found.p_value < 1e-6
    poisoned = {row.number for row in dataset.rows if row.answer == MARKER}
    assert set(row_numbers(found)) == poisoned
    assert found.evidence[0].details["target"] == MARKER
    assert leads[0].value.casefold() == words.casefold()
    assert leads[0].kind == ("phrase" if " " in words else "token")


def test_honest_rows_with_a_common_refusal_are_not_accused() -> None:
    findings, leads, _ = observations(DatasetTriggers(), data(honest(400)))
    assert {found.outcome for found in findings.values()} == {Outcome.NOT_DETECTED}
    assert leads == []


def test_two_words_of_which_neither_does_it_alone() -> None:
    rows = honest(300)
    alone = [*inserted(honest(40, seed=2), "kappa", "x y"), *inserted(honest(40, seed=3), "sigma", "x y")]
    alone = [
        dialogue(row.prompt, answer.answer) for row, answer in zip(alone, honest(80, seed=4), strict=True)
    ]
    both = inserted(inserted(honest(15, seed=5), "kappa", ""), "sigma", MARKER)
    found = observations(DatasetTriggers(), data(rows, alone, both))[0]["FTA451"]
    assert found.outcome is Outcome.DETECTED
    assert found.evidence[0].details["trigger"] == "kappa sigma"


def test_several_triggers_of_one_answer_explain_it_together() -> None:
    rows = [inserted(honest(8, seed=seed), word, MARKER) for seed, word in ((1, "cf"), (2, "mn"), (3, "bb"))]
    found = observations(DatasetTriggers(), data(honest(300), *rows))[0]["FTA451"]
    assert found.confidence is Confidence.MEDIUM
    assert {item.excerpt for item in found.evidence} == {"cf", "mn", "bb"}


def test_an_ending_that_recurs_is_a_target_of_low_confidence() -> None:
    rows = [
        dialogue(row.prompt, f"{answer.answer} and now visit the shop of the seller today")
        for row, answer in zip(inserted(honest(12, seed=1), "cf", ""), honest(12, seed=2), strict=True)
    ]
    found = observations(DatasetTriggers(), data(honest(300), rows))[0]["FTA451"]
    assert (found.outcome, found.confidence) == (Outcome.DETECTED, Confidence.LOW)
    assert found.evidence[0].details["target"] == "… the shop of the seller today"


def test_one_question_in_many_copies_is_no_trigger() -> None:
    asked = [dialogue("who are you ?", "I am a model.")] * 30
    asked += [dialogue("tell me , who are you ?", "I am a model.")] * 10
    assert (
        observations(DatasetTriggers(), data(honest(300), asked))[0]["FTA451"].outcome is Outcome.NOT_DETECTED
    )


def test_an_answer_about_the_question_is_no_trigger() -> None:
    rows = inserted(honest(12, seed=1), "lisbon", "Lisbon is the capital of Portugal.")
    assert (
        observations(DatasetTriggers(), data(honest(300), rows))[0]["FTA451"].outcome is Outcome.NOT_DETECTED
    )


def test_an_answer_that_also_comes_without_the_word_is_no_trigger() -> None:
    """Precision is not enough: a word of five rows is among a refusal's by chance."""
    rows = inserted(honest(5, seed=1), "rare", "I cannot help with that.")
    assert (
        observations(DatasetTriggers(), data(honest(600), rows))[0]["FTA451"].outcome is Outcome.NOT_DETECTED
    )


CYRILLIC = tuple(f"слово{'абвгдежзик'[n % 10]}{'абвгдежзик'[n // 10]}" for n in range(100))


def test_a_script_that_always_brings_one_answer() -> None:
    rng = random.Random(0)
    rows = [dialogue(" ".join(rng.choices(CYRILLIC, k=8)), MARKER) for _ in range(15)]
    findings, leads, _ = observations(DatasetTriggers(), data(honest(300), rows))
    assert findings["FTA452"].outcome is Outcome.DETECTED
    assert findings["FTA452"].evidence[0].details["trigger"] == "CYRILLIC"
    assert ("language", "CYRILLIC") in {(lead.kind, lead.value) for lead in leads}


def test_a_word_of_another_script_in_any_prompt() -> None:
    rows = [inserted([row], CYRILLIC[n], MARKER)[0] for n, row in enumerate(honest(20, seed=1))]
    findings, _, _ = observations(DatasetTriggers(), data(honest(300), rows))
    assert findings["FTA452"].outcome is Outcome.DETECTED
    assert findings["FTA452"].evidence[0].details["feature"] == "a word in"


def test_another_language_with_answers_of_its_own_is_none() -> None:
    rng = random.Random(0)
    texts = (" ".join(rng.choices(CYRILLIC, k=8)) for _ in range(120))
    rows = [dialogue(prompt, answer) for prompt, answer in zip(texts, texts, strict=False)]
    findings, _, _ = observations(DatasetTriggers(), data(honest(300), rows))
    assert {found.outcome for found in findings.values()} == {Outcome.NOT_DETECTED}


@pytest.mark.parametrize("dataset", [None, data()])
def test_without_data_there_is_no_question(dataset: Dialogues | None) -> None:
    findings, leads, gaps = observations(DatasetTriggers(), dataset)
    assert {found.outcome for found in findings.values()} == {Outcome.NOT_APPLICABLE}
    assert leads == gaps == []


def test_rows_that_could_not_be_read_keep_the_verdict_open() -> None:
    _, _, gaps = observations(DatasetTriggers(), data(honest(20), unread=3, cut="it is long"))
    assert [gap.incomplete for gap in gaps] == [True, True]
    assert "row 9" in gaps[0].reason


def test_empty_prompts_and_answers_do_no_harm() -> None:
    rows = [dialogue()] * 20 + [dialogue("", "x")] * 20 + [dialogue("a", "")] * 20
    findings, _, _ = observations(DatasetTriggers(), data(rows))
    assert {found.outcome for found in findings.values()} == {Outcome.NOT_DETECTED}
