"""The published schemas are those of the models, and say the same as the models about examples."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

import ftsec_audit.schemas.__main__ as schemas
from ftsec_audit.policy import SHIPPED

PACKAGE = Path(schemas.__file__).parent.parent


@pytest.mark.parametrize("name", schemas.MODELS)
def test_the_published_file_is_up_to_date(name: str) -> None:
    published = (PACKAGE / "schemas" / name).read_text(encoding="utf-8")
    assert published == schemas.text(schemas.MODELS[name]), "run make schemas"
    jsonschema.Draft202012Validator.check_schema(json.loads(published))


def validator(name: str) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(
        json.loads((PACKAGE / "schemas" / name).read_text(encoding="utf-8"))
    )


@pytest.mark.parametrize("name", SHIPPED)
def test_the_shipped_policies_follow_the_schema(name: str) -> None:
    validator("policy-1.json").validate(yaml.safe_load((PACKAGE / "policies" / f"{name}.yaml").read_text()))


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        (
            "policy-1.json",
            {"version": 1, "require": ["FTA1", {"rules": "FTA7"}]},
            {"version": 1, "require": ["X"]},
        ),
        ("policy-1.json", {"version": 1}, {"version": 1, "requires": []}),
        ("ignorefile-1.json", {"version": 1, "ignore": [{"id": "FTA1", "statement": "x"}]}, {"version": 2}),
        ("models-1.json", {"models": ["a/b", {"model": "c/d", "base": "e/f"}]}, {"models": []}),
    ],
)
def test_schemas_accept_and_refuse(name: str, good: object, bad: object) -> None:
    validator(name).validate(good)
    assert not validator(name).is_valid(bad)
