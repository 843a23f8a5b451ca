"""`python -m ftsec_audit.schemas` writes the published JSON Schemas of files that users write."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import TypeAdapter

from ftsec_audit.models_list import ModelsList
from ftsec_audit.policy import Policy
from ftsec_audit.suppress import IgnoreFile
from ftsec_audit.user_yaml import Part

MODELS: dict[str, type[Part]] = {
    "policy-1.json": Policy,
    "ignorefile-1.json": IgnoreFile,
    "models-1.json": ModelsList,
}


def text(model: type[Part]) -> str:
    """The schema of one model, as it is published."""
    derived = TypeAdapter(model).json_schema()
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **derived}
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def main() -> None:
    for name, model in MODELS.items():
        Path(__file__).with_name(name).write_text(text(model), encoding="utf-8")


if __name__ == "__main__":
    main()
