"""One scan as a stored document: the report, or the reason why there is none, and what it took.

    {"format": 1, "key": …, "attempt": 0, "reference": …, "base": …, "size": …, "scanned_at": …,
     "seconds": …, "memory": …, "tool_version": …, "failure": null, "report": {…}}

The report inside is the document of the `json` format, judged by the default policy, so that a document
depends on the artifact and the questions alone; other policies judge it again when they read it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from ftsec_audit.batch.job import Failure, FailureKind, Row, detections
from ftsec_audit.errors import UsageError
from ftsec_audit.report import json as report_json
from ftsec_audit.types import Report
from ftsec_audit.version import VERSION

FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Record:
    """Exactly one of `report` and `failure` is set."""

    key: str
    reference: str
    base: str = ""
    size: int = 0
    """Bytes of the artifact."""
    scanned_at: str = ""
    seconds: float = 0.0
    memory: int = 0
    tool_version: str = VERSION
    attempt: int = 0
    """0 for a report, else the number of this failure."""
    failure: Failure | None = None
    report: Report | None = None

    @property
    def name(self) -> str:
        """Of the document; a failure never takes the place of a report."""
        return f"{self.key}.failed-{self.attempt}" if self.failure else self.key

    def render(self) -> bytes:
        body = {field: getattr(self, field) for field in _PLAIN}
        failure = asdict(self.failure) if self.failure else None
        report = report_json.document(self.report) if self.report else None
        document = {"format": FORMAT, **body, "failure": failure, "report": report}
        return json.dumps(document, separators=(",", ":")).encode() + b"\n"

    @classmethod
    def parse(cls, data: bytes) -> Record:
        """Raises UsageError when `data` is not a whole document of this format."""
        try:
            value: Any = json.loads(data)
            if value["format"] != FORMAT:
                raise UsageError(f"a stored result of format {value['format']!r}, not {FORMAT}")
            failure, report = value["failure"], value["report"]
            return cls(
                **{field: _TYPES[field](value[field]) for field in _PLAIN},
                failure=Failure(kind=FailureKind(failure["kind"]), reason=failure["reason"])
                if failure
                else None,
                report=report_json.from_document(report) if report else None,
            )
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise UsageError(f"not a stored result ({type(error).__name__})") from error

    def row(self) -> Row:
        """The document in short."""
        common = {field: getattr(self, field) for field in _PLAIN if field != "attempt"}
        if self.report is None:
            failure = self.failure or Failure(
                kind=FailureKind.ERROR, reason="holds neither result nor reason"
            )
            return Row(name=self.name, **common, failure=failure.kind, reason=failure.reason)
        report = self.report
        return Row(
            name=self.name,
            **common,
            resolved=report.artifact.resolved,
            digest=report.artifact.digest,
            description=report.artifact.description,
            profile=report.profile,
            verdict=report.verdict,
            suspicion=report.suspicion.total,
            detected=detections(report),
        )


_TYPES: dict[str, Any] = {
    "key": str,
    "attempt": int,
    "reference": str,
    "base": str,
    "size": int,
    "scanned_at": str,
    "seconds": float,
    "memory": int,
    "tool_version": str,
}
_PLAIN = tuple(_TYPES)
