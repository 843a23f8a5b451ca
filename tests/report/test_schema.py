from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

import pytest
from builders import reports
from jsonschema import Draft202012Validator

from ftsec_audit.report import json as json_format
from ftsec_audit.report import schema
from ftsec_audit.types import Report


@pytest.fixture(scope="module")
def published() -> Any:
    return json.loads((files("ftsec_audit") / "schemas" / schema.FILE).read_text(encoding="utf-8"))


def test_the_published_schema_is_up_to_date(published: Any) -> None:
    assert published == schema.schema(), (
        "python -m ftsec_audit.report.schema > ftsec_audit/schemas/" + schema.FILE
    )


def test_the_published_schema_is_one(published: Any) -> None:
    Draft202012Validator.check_schema(published)


@pytest.mark.parametrize(
    "report", [reports.passing(), reports.failing(), reports.inconclusive(), reports.hostile()]
)
def test_reports_conform(report: Report, published: Any) -> None:
    Draft202012Validator(published).validate(json.loads(json_format.render(report)))


def test_the_schema_refuses_what_a_report_does_not_have(published: Any) -> None:
    document = json_format.document(reports.passing())
    validator = Draft202012Validator(published)
    assert not validator.is_valid(document | {"surprise": 1})
    assert not validator.is_valid({key: value for key, value in document.items() if key != "verdict"})
    document["findings"][0]["outcome"] = "maybe"
    assert not validator.is_valid(document)


def test_fields_are_described_by_their_docstrings(published: Any) -> None:
    population = published["$defs"]["Population"]["properties"]
    assert population["quantile"]["description"] == "Share of the population below the value, 0..1."
    assert population["quantile"]["type"] == ["number", "null"]
