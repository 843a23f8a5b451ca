from __future__ import annotations

import json
import math
from dataclasses import fields, is_dataclass, replace
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import pytest
from builders import reports
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ftsec_audit.errors import UsageError
from ftsec_audit.report import json as json_format
from ftsec_audit.report import jsonl
from ftsec_audit.types import Report, Suspicion

_TEXT = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=6)
_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**62), 2**62)
    | st.floats(allow_nan=False, allow_infinity=False)
    | _TEXT,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(_TEXT, inner, max_size=2),
    max_leaves=4,
)


def values_of(hint: Any) -> st.SearchStrategy[Any]:
    """Any value a field with this type may have."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return _JSON
    if origin in (Union, UnionType):
        return st.one_of(*map(values_of, arguments))
    if origin is tuple and arguments[-1] is Ellipsis:
        return st.lists(values_of(arguments[0]), max_size=2).map(tuple)
    if origin is tuple:
        return st.tuples(*map(values_of, arguments))
    if origin is list:
        return st.lists(values_of(arguments[0]), max_size=3)
    if origin is dict:
        return st.dictionaries(_TEXT, values_of(arguments[1]), max_size=2)
    if is_dataclass(hint):
        hints = get_type_hints(hint)
        return st.builds(hint, **{field.name: values_of(hints[field.name]) for field in fields(hint)})
    if issubclass(hint, tuple):
        return values_of(hint.__orig_bases__[0]).map(hint)
    plain = {
        str: _TEXT,
        bool: st.booleans(),
        int: st.integers(-(2**63) + 1, 2**63 - 1),
        float: st.floats(allow_nan=False, allow_infinity=False),
        NoneType: st.none(),
    }
    return plain[hint] if hint in plain else st.sampled_from(list(hint))


REPORTS = values_of(Report).map(lambda report: replace(report, schema_version="1.0"))


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(REPORTS)
def test_a_report_survives_the_round_trip(report: Report) -> None:
    text = json_format.render(report)
    again = json_format.load(text)
    assert again == report
    assert json_format.render(again) == text
    assert list(jsonl.load(jsonl.render(report).splitlines())) == [report]


def test_the_top_level_is_what_people_look_for() -> None:
    document = json.loads(json_format.render(reports.failing()))
    assert list(document)[:2] == ["schema_version", "verdict"]
    assert document["verdict"] == "fail"
    assert {"artifact", "base", "suspicion", "findings", "leads", "not_looked_at"} <= document.keys()
    finding = document["findings"][0]
    assert finding["rule"] == "FTA201"
    assert finding["evidence"][0]["population"]["n"] == 412


def test_numbers_that_json_does_not_have_are_null() -> None:
    text = json_format.render(reports.hostile())
    document = json.loads(text, parse_constant=pytest.fail)
    evidence = document["findings"][0]["evidence"][0]
    assert evidence["value"] is None
    assert evidence["interval"] == [None, None]
    assert document["measurements"][0]["values"]["singular_values"] == [None, None, 0.0, -1.0]
    again = json_format.load(text)
    assert math.isnan(again.measurements[0].values["singular_values"][0])
    assert json_format.render(again) == text


def test_the_text_is_plain_ascii() -> None:
    assert json_format.render(reports.hostile()).replace("\n", "").isprintable()
    assert json_format.render(reports.hostile()).isascii()


def test_a_report_may_be_given_as_bytes() -> None:
    assert json_format.load(json_format.render(reports.passing()).encode()) == reports.passing()


def test_an_older_report_may_lack_what_has_a_default() -> None:
    document = json.loads(json_format.render(reports.passing()))
    for key in ("rules", "leads", "suspicion", "seed"):
        del document[key]
    report = json_format.from_document(document)
    assert report.rules == ()
    assert report.suspicion == Suspicion()


def _changed(**changes: Any) -> str:
    return json.dumps(json.loads(json_format.render(reports.inconclusive())) | changes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a report"),
        ("[]", "no object"),
        ("{}", "schema_version is None"),
        ("{" * 100_000, "not a report"),
        ("[" * 100_000 + "]" * 100_000, "not a report"),
        ('{"schema_version": "1.0"} trailing', "text after its end"),
        ('{"schema_version": "1.0", "schema_version": "1.0"}', "repeated keys"),
        (_changed(seed=float("nan")), "numbers that JSON does not have"),
        (_changed(schema_version="2.0"), "schema_version is '2.0'"),
        (_changed(surprise=1), "unknown key 'surprise'"),
        (_changed(verdict="pass"), "verdict and decision.verdict differ"),
        (_changed(seed="0"), "seed: needs an integer, not '0'"),
        (_changed(seed=True), "seed: needs an integer, not True"),
        (_changed(seed=10**30), "seed: the number is too large"),
        (_changed(seed=1.5), "seed: needs an integer"),
        (_changed(profile="extreme"), "profile: 'extreme' is none of quick, standard, deep"),
        (_changed(findings={}), "findings: needs an array"),
        (_changed(findings=[{}]), r"findings\[0\]: rule is missing"),
        (_changed(artifact=None), "artifact: needs an object, not None"),
        (_changed(limits=[None]), r"limits\[0\]: needs a string"),
        (_changed(suspicion={"total": 10**400}), "not a report|too large"),
        (_changed(suspicion={"total": "much"}), r"suspicion.total: needs a number"),
        (
            _changed(measurements=[{"name": "", "role": "", "layer": 0, "shape": [1], "values": {"x": "y"}}]),
            "values.x",
        ),
    ],
)
def test_what_is_not_a_report_is_refused_with_a_reason(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        json_format.load(text)


def test_a_document_that_is_too_large_is_refused_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_format, "LIMITS", replace(json_format.LIMITS, size=1_000))
    with pytest.raises(UsageError, match="the limit is 1,000"):
        json_format.load(json_format.render(reports.passing()))


def test_lines_name_the_one_that_is_wrong() -> None:
    line = jsonl.render(reports.passing())
    assert line.count("\n") == 1
    with pytest.raises(UsageError, match="line 3"):
        list(jsonl.load([line, "\n", "{}"]))
