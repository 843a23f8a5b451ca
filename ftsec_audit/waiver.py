"""A finding that a person accepted: which rule, of which artifacts, until when, and why."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date
from fnmatch import fnmatchcase
from typing import Annotated, Any

from ftsec_audit.types import ArtifactCard, Evidence, Finding
from ftsec_audit.user_yaml import Part


class _Prefix:
    """What pydantic has to know of a rule prefix in a file."""

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, _handler: Any) -> Any:
        from pydantic_core import core_schema

        return core_schema.str_schema(pattern=r"^FTA\d{1,3}$")


RulePrefix = Annotated[str, _Prefix]
"""A rule id or the beginning of one."""


@dataclass(frozen=True, kw_only=True)
class Waiver(Part):
    """One accepted finding."""

    # Described by metadata, which a class that is made from this one keeps in its schema.
    id: RulePrefix = field(metadata={"description": "A rule id or the beginning of one."})
    artifact: str = field(
        default="*", metadata={"description": "Glob on the reference as given or as resolved."}
    )
    paths: tuple[str, ...] = field(
        default=(),
        metadata={"description": "Globs; every piece of evidence must lie in a file that one of them names."},
    )
    expired_at: date | None = field(
        default=None, metadata={"description": "From this day on the entry has no effect."}
    )
    statement: str = field(metadata={"min_length": 1, "description": "Who accepted it, and why."})

    def matches(self, finding: Finding, artifact: ArtifactCard) -> bool:
        return (
            finding.rule.startswith(self.id)
            and any(fnmatchcase(name, self.artifact) for name in (artifact.reference, artifact.resolved))
            and (not self.paths or (bool(finding.evidence) and all(map(self._covers, finding.evidence))))
        )

    def holds(self, today: date) -> bool:
        return self.expired_at is None or self.expired_at > today

    def _covers(self, evidence: Evidence) -> bool:
        file = evidence.location.file
        return bool(file) and any(fnmatchcase(file, pattern) for pattern in self.paths)


@dataclass(frozen=True, kw_only=True)
class ExpiringWaiver(Waiver):
    """One accepted finding, with the day on which somebody has to look again."""

    expired_at: date = field()  # without the default of the class above
    """From this day on the waiver has no effect."""


def numbered(waivers: Iterable[Waiver], name: str) -> Iterator[tuple[str, Waiver]]:
    """Each waiver with its place in the file it stands in: `waivers[0]`."""
    return ((f"{name}[{number}]", waiver) for number, waiver in enumerate(waivers))
