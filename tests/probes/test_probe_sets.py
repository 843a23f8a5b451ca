"""Prompt sets say where they come from; parallel prompts are parallel; bad files are the user's error."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from ftsec_audit import probes
from ftsec_audit.errors import UsageError


@pytest.mark.parametrize("name", probes.SHIPPED)
def test_shipped_sets_say_where_they_come_from(name):
    found = probes.shipped(name)
    assert found.licence and found.attribution and found.version
    assert found.languages


def test_the_shipped_sets_together_ask_in_ten_languages_and_more():
    found = probes.default()
    refused = [code for code, questions in found.languages.items() if len(questions.restricted) >= 60]
    assert len(refused) >= 10
    assert len(found.neutral()) >= 10
    assert found.languages["en"].harmless  # XSTest's contrasts
    assert "MIT" in found.licence and "CC-BY-4.0" in found.licence


def test_parallel_prompts_are_parallel():
    found = probes.shipped("parallel")
    assert {len(prompts) for prompts in found.neutral().values()} == {20}
    assert all(concept.keys() == found.languages.keys() for concept in found.dictionary)
    every = [prompt for prompts in found.neutral().values() for prompt in prompts]
    assert len(set(every)) == len(every)


def test_a_set_can_be_narrowed_to_languages_it_has():
    assert list(probes.default().only(("ko", "en")).languages) == ["ko", "en"]
    with pytest.raises(UsageError, match="no prompts in xx"):
        probes.default().only(("en", "xx"))


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        '{"languages": {"en": {"restricted": "no list"}}}',
        '{"languages": {}, "dictionary": ["water"]}',
        '{"languages": {}, "dictionary": {"water": "agua"}}',
        '{"languages": {}, "personas": [1]}',
    ],
)
def test_a_file_that_is_no_probe_set_is_the_users_error(tmp_path, content):
    (tmp_path / "own.json").write_text(content)
    with pytest.raises(UsageError, match="probe set"):
        probes.load(tmp_path / "own.json")


def test_a_set_of_ones_own_needs_languages_alone(tmp_path):
    (tmp_path / "own.json").write_text(json.dumps({"languages": {"de": {"restricted": ["eins ", ""]}}}))
    found = probes.load(tmp_path / "own.json")
    assert found.languages["de"].restricted == ("eins",)
    assert found.neutral() == {}


def test_the_shortest_language_sets_how_many_prompts_are_parallel(tmp_path):
    languages = {"de": {"neutral": ["eins", "zwei"]}, "en": {"neutral": ["one"]}, "it": {}}
    (tmp_path / "own.json").write_text(json.dumps({"languages": languages}))
    assert probes.load(tmp_path / "own.json").neutral() == {"de": ("eins",), "en": ("one",)}


def test_a_prompt_is_cited_by_its_set_and_place_and_repeated_only_when_asked_for():
    found = probes.default()
    (english,) = found.cited("en", "restricted", [16])
    assert english.id == f"{probes.shipped('xstest').id}/en/restricted/17"
    assert english.text == ""
    (neutral,) = found.cited("en", "neutral", [0])
    assert neutral.id == f"{probes.shipped('parallel').id}/en/neutral/1"
    (shown,) = replace(found, shows_texts=True).cited("en", "restricted", [16])
    assert shown.text == probes.shipped("xstest").languages["en"].restricted[16]


def test_a_set_of_ones_own_that_has_no_version_gets_one_by_its_content(tmp_path):
    def ids(*prompts):
        (tmp_path / "own.json").write_text(json.dumps({"languages": {"de": {"restricted": prompts}}}))
        return [one.id for one in probes.load(tmp_path / "own.json").cited("de", "restricted", [0])]

    assert ids("eins", "zwei") == ids("eins", "zwei")
    assert ids("eins", "zwei") != ids("zwei", "eins")
    assert ids("eins")[0].startswith("own@")
    assert ids("eins")[0].endswith("/de/restricted/1")
