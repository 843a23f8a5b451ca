"""The published JSON Schema of a report, derived from the dataclasses and their docstrings.

`python -m ftsec_audit.report.schema` prints it; the file in `ftsec_audit/schemas` is its output.
"""

from __future__ import annotations

import ast
import inspect
import json
from itertools import pairwise
from textwrap import dedent
from typing import Any

from ftsec_audit import types
from ftsec_audit.report.json import SCHEMA_VERSION

FILE = f"report-{SCHEMA_VERSION}.json"
"""Its name below `ftsec_audit/schemas`."""

_NUMBER = {"type": ["number", "null"]}
"""A number that is not finite is written as null."""


def schema() -> dict[str, Any]:
    """The schema as JSON values: no keys but those that are named, except where names are data."""
    from pydantic import TypeAdapter
    from pydantic.json_schema import GenerateJsonSchema

    class Schema(GenerateJsonSchema):
        def float_schema(self, _schema: Any) -> dict[str, Any]:
            return dict(_NUMBER)

        def nullable_schema(self, schema: Any) -> dict[str, Any]:
            inner = self.generate_inner(schema["schema"])
            return inner if inner == _NUMBER else super().nullable_schema(schema)

    derived = TypeAdapter(types.Report).json_schema(schema_generator=Schema)
    added = {"verdict": {"$ref": "#/$defs/Verdict"}, "meaning": {"type": "string"}}
    derived["properties"] = {**added, **derived["properties"]}
    derived["required"] = ["schema_version", "verdict", *derived["required"]]
    for name, part in {**derived["$defs"], "Report": derived}.items():
        if part["type"] == "object":
            part["additionalProperties"] = False
            _describe(part["properties"], field_docstrings(getattr(types, name)))
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **derived,
        "title": f"ftsec-audit report {SCHEMA_VERSION}",
    }


def _describe(properties: dict[str, Any], descriptions: dict[str, str]) -> None:
    for name, part in properties.items():
        part.pop("title", None)  # the key in other letters
        if name in descriptions:
            part["description"] = descriptions[name]


def field_docstrings(class_: type) -> dict[str, str]:
    """Field name → the string literal that follows the field in the source of the class."""
    body = ast.parse(dedent(inspect.getsource(class_))).body[0]
    assert isinstance(body, ast.ClassDef)
    found = {}
    for field, after in pairwise(body.body):
        match field, after:
            case (
                ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str(text))),
            ):
                found[name] = " ".join(text.split())
    return found


def text() -> str:
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    print(text(), end="")
