"""How a report is shown: one module per format, each with `render(report) -> str`.

Laws: rendering is pure (no clock, no environment, no terminal, no network), equal reports give equal
text, and strings that came from an artifact are escaped for the format they are written in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module

from ftsec_audit.errors import UsageError
from ftsec_audit.types import Report

FORMATS = ("table", "json", "jsonl", "sarif", "html", "markdown", "cyclonedx", "intoto")
BINARY = ("parquet",)
"""Formats that are files and hold any number of reports: `render_all(reports) -> bytes`."""


def render(report: Report, format: str) -> str:
    """`report` in one of `FORMATS`; imports only what that format needs. Raises UsageError."""
    if format not in FORMATS:
        raise UsageError(f"{format!r} is no report format", hint=f"one of {', '.join(FORMATS)}")
    rendered: Callable[[Report], str] = import_module(f"ftsec_audit.report.{format}").render
    return rendered(report)


def render_all(reports: Sequence[Report], format: str) -> bytes:
    """`reports` in one file of a format of `BINARY`. Raises UsageError."""
    if format not in BINARY:
        raise UsageError(f"{format!r} is no format of this kind", hint=f"one of {', '.join(BINARY)}")
    rendered: Callable[[Sequence[Report]], bytes] = import_module(f"ftsec_audit.report.{format}").render_all
    return rendered(reports)
