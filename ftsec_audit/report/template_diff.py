"""The difference between two chat templates, side by side, from the unified diff that a detector wrote."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from ftsec_audit.types import Report

KEY = "template_diff"
"""The name of the diff among the details of a piece of evidence."""
_MAX_LINES = 1_000
_HUNK = re.compile(r"@@ -(\d{1,9})(?:,\d{1,9})? \+(\d{1,9})(?:,\d{1,9})? @@")


@dataclass(frozen=True, kw_only=True)
class Line:
    """A line of either side, or of both; without a number there is none on that side."""

    kind: str
    """`same`, `changed`, `removed`, `added`, or `gap` where lines were left out."""
    left_number: int | None = None
    left: str = ""
    right_number: int | None = None
    right: str = ""


@dataclass(frozen=True, kw_only=True)
class TemplateDiff:
    rule: str
    left: str
    """Where the left side stands."""
    right: str
    lines: tuple[Line, ...]


def template_diffs(report: Report) -> list[TemplateDiff]:
    """Those of all findings, each once."""
    found: dict[str, TemplateDiff] = {}
    for finding in report.findings:
        for evidence in finding.evidence:
            text = evidence.details.get(KEY)
            if isinstance(text, str) and text not in found and (diff := _parsed(finding.rule, text)):
                found[text] = diff
    return list(found.values())


def _parsed(rule: str, text: str) -> TemplateDiff | None:
    lines = text.split("\n")[:_MAX_LINES]
    if len(lines) < 3 or not (lines[0].startswith("--- ") and lines[1].startswith("+++ ")):
        return None
    return TemplateDiff(rule=rule, left=lines[0][4:], right=lines[1][4:], lines=tuple(_paired(lines[2:])))


def _paired(lines: Sequence[str]) -> Iterator[Line]:
    """Removed lines beside those added in their place."""
    left, right = 1, 1
    removed: list[str] = []
    added: list[str] = []

    def flush() -> Iterator[Line]:
        nonlocal left, right
        for old, new in zip_longest(removed, added):
            yield Line(
                kind="changed"
                if old is not None and new is not None
                else "removed"
                if new is None
                else "added",
                left_number=None if old is None else left,
                left=old or "",
                right_number=None if new is None else right,
                right=new or "",
            )
            left, right = left + (old is not None), right + (new is not None)
        removed.clear()
        added.clear()

    for line in lines:
        if line.startswith("-"):
            removed.append(line[1:])
        elif line.startswith("+"):
            added.append(line[1:])
        else:
            yield from flush()
            if hunk := _HUNK.match(line):
                starts = int(hunk[1]), int(hunk[2])
                if starts != (left, right):
                    yield Line(kind="gap")
                left, right = starts
            elif line.startswith(" "):
                yield Line(kind="same", left_number=left, left=line[1:], right_number=right, right=line[1:])
                left, right = left + 1, right + 1
    yield from flush()
