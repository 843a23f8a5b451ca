"""A list of models to audit: `-r models.yaml`, or one reference per line on standard input."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler, model_validator

from ftsec_audit import user_yaml


class Model(BaseModel):
    """One model. May be written as a bare reference."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field(min_length=1, description="A reference as on the command line, ideally with a commit.")
    base: str | None = Field(default=None, description="The base it is compared with.")

    @model_validator(mode="before")
    @classmethod
    def _from_reference(cls, value: Any) -> Any:
        return {"model": value} if isinstance(value, str) else value

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        schema = handler.resolve_ref_schema(handler(core_schema))
        return {"anyOf": [{"type": "string", "minLength": 1}, schema]}


class ModelsList(BaseModel):
    """The models of a deployment."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    models: tuple[Model, ...] = Field(min_length=1)


def load(path: Path) -> tuple[Model, ...]:
    """The models of a YAML file; raises UsageError with the lines that are wrong."""
    return user_yaml.load(path, ModelsList).models


def from_lines(lines: Iterable[str]) -> tuple[Model, ...]:
    """One reference per line; blank lines and what follows `#` are skipped."""
    references = (line.partition("#")[0].strip() for line in lines)
    return tuple(Model(model=reference) for reference in references if reference)
