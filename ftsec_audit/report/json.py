"""The report as one JSON document, and back: the form in which results are stored.

The document is the `Report` field by field, plus `verdict`, and what that means, at the top; its schema
is published as `ftsec_audit/schemas/report-1.0.json`. It is plain ASCII (what is not is `\\u`-escaped, so
it is safe on any terminal), holds no wall-clock time, and is the same for equal reports. A number that is
not finite is `null`; half of a surrogate pair, which UTF-8 cannot carry, is spelled out as `\\udc80`.

`load(render(report)) == report` for every report without those two and with JSON values in `details`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from ftsec_audit.errors import BudgetExceeded, FormatError, UsageError
from ftsec_audit.formats import bounded_json
from ftsec_audit.report.decode import decode
from ftsec_audit.report.phrases import PASS_MEANS
from ftsec_audit.types import Report

SCHEMA_VERSION = "1.0"
LIMITS = bounded_json.JsonLimits(size=256 << 20, values=20_000_000)


def render(report: Report) -> str:
    """An indented document that ends in a newline."""
    return json.dumps(document(report), indent=2) + "\n"


def document(report: Report) -> dict[str, Any]:
    """The report as JSON values: dicts, lists, strings, finite numbers, booleans, None."""
    body: dict[str, Any] = plain(report)
    version, verdict = body["schema_version"], str(report.verdict)
    return {"schema_version": version, "verdict": verdict, "meaning": PASS_MEANS, **body}


def load(text: str | bytes) -> Report:
    """The report that `text` holds; raises UsageError when it is not one, or larger than `LIMITS`."""
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    try:
        parsed = bounded_json.parse(data, limits=LIMITS)
    except (FormatError, BudgetExceeded) as error:
        raise UsageError(f"not a report: {error.what}") from error
    if parsed.tail or parsed.repeated or parsed.constants:
        fault = "text after its end" if parsed.tail else "repeated keys or numbers that JSON does not have"
        raise UsageError(f"not a report: the document has {fault}")
    return from_document(parsed.value)


def from_document(value: object) -> Report:
    """The report in a parsed document; raises UsageError naming what does not fit, and where."""
    if not isinstance(value, Mapping):
        raise UsageError("not a report: the document is no object")
    version = value.get("schema_version")
    if not isinstance(version, str) or version.split(".")[0] != SCHEMA_VERSION.split(".", maxsplit=1)[0]:
        raise UsageError(
            f"not a report of schema {SCHEMA_VERSION}: schema_version is {ascii(version)[:40]}",
            hint="was it written by another version of ftsec-audit?",
        )
    body = dict(value)
    verdict = body.pop("verdict", None)
    body.pop("meaning", None)
    report = decode(body, Report)
    if verdict != report.verdict:
        raise UsageError("verdict and decision.verdict differ", where="verdict")
    return report


def plain(value: object) -> Any:
    """Any value of a report as JSON values."""
    if is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {_text(str(key)): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int)):
        return value
    return _text(str(value))


def _text(text: str) -> str:
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")
