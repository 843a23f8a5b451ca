"""What every detector class promises before it is run: ids, pages, hyper-parameters, fingerprints."""

from __future__ import annotations

import dataclasses
import inspect
import re
import subprocess
import sys

import pytest

from detectors import registry
from ftsec_audit import taxonomy
from ftsec_audit.contracts import ArtifactDetector, BehaviourDetector, Detector, WeightDetector
from ftsec_audit.errors import UsageError

CLASSES = registry.detectors(third_party=False)
RULES = [(cls, rule) for cls in CLASSES for rule in cls.rules]
by_class = pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
by_rule = pytest.mark.parametrize(("cls", "rule"), RULES, ids=lambda x: getattr(x, "id", None))


def test_the_table_says_what_the_classes_say():
    table = [(entry.rules, entry.profile) for entry in registry.known(third_party=False)]
    assert table == [(tuple(rule.id for rule in cls.rules), cls.profile) for cls in CLASSES]


def test_rule_ids_and_names_are_unique():
    ids, names = [rule.id for _, rule in RULES], [rule.name for _, rule in RULES]
    assert len(set(ids)) == len(ids)
    assert len(set(names)) == len(names)


@by_rule
def test_a_rule_is_complete(cls, rule):
    assert re.fullmatch(r"FTA[1-7]\d\d", rule.id)
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", rule.name)
    assert rule.question.endswith("?")
    assert rule.remediation.endswith((".", ")"))
    assert rule.family


@by_rule
def test_a_rule_is_documented_on_the_page_of_its_detector(cls, rule):
    page = inspect.getdoc(sys.modules[cls.__module__]) or ""
    assert rule.id in page
    assert rule.name in page
    for part in ("false positives", "evasions", "cost"):
        assert part in page.lower(), f"the page says nothing about {part}"


@by_rule
def test_a_rule_has_a_place_in_the_taxonomies(cls, rule):
    assert taxonomy.references(rule.id)


@by_class
def test_a_detector_is_a_frozen_value_with_defaults(cls):
    assert issubclass(cls, Detector)
    assert issubclass(cls, (ArtifactDetector, WeightDetector, BehaviourDetector))
    detector = cls()
    assert detector == cls()
    for field in dataclasses.fields(cls):
        assert field.kw_only
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(detector, field.name, getattr(detector, field.name))


@by_class
def test_the_fingerprint_holds_every_hyper_parameter(cls):
    first = cls().fingerprint()
    assert re.fullmatch(r"[0-9a-f]{12}", first)
    assert first == cls().fingerprint()
    for field in dataclasses.fields(cls):
        value = getattr(cls(), field.name)
        if isinstance(value, (int, float)):
            assert cls(**{field.name: value + 1}).fingerprint() != first


def test_the_rules_can_be_listed_without_the_heavy_libraries():
    code = (
        "import sys; from detectors.registry import detectors; detectors();"
        "print(sorted({'torch', 'transformers', 'numpy', 'sklearn', 'pydantic'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


class _EntryPoint:
    value = "elsewhere:thing"

    def __init__(self, name, loaded):
        self.name, self._loaded = name, loaded

    def load(self):
        return self._loaded


def test_third_party_detectors_come_after_the_own_ones(monkeypatch):
    rule = dataclasses.replace(RULES[0][1], id="FTA199", name="third-party")
    theirs = type("Theirs", (CLASSES[0],), {"rules": (rule,)})
    monkeypatch.setattr(registry, "entry_points", lambda group: [_EntryPoint("theirs", theirs)])
    assert registry.detectors() == (*CLASSES, theirs)
    assert registry.detectors(third_party=False) == CLASSES


@pytest.mark.parametrize("loaded", [int, "text", CLASSES[0]], ids=["other class", "no class", "ids taken"])
def test_what_is_no_new_detector_is_refused(monkeypatch, loaded):
    monkeypatch.setattr(registry, "entry_points", lambda group: [_EntryPoint("theirs", loaded)])
    with pytest.raises(UsageError, match="theirs"):
        registry.detectors()
