"""The difference of two chat templates as a unified diff, short enough to stand in a report."""

from __future__ import annotations

import re
from difflib import unified_diff
from itertools import islice

from ftsec_audit.formats.chat_template import TemplateCopy

_MAX_INPUT_LINES = 2_000
_MAX_LINES = 400
_MAX_WIDTH = 500
_LONG = 160
_AFTER_A_TAG = re.compile(r"(?<=[%}#]\})")


def difference(before: TemplateCopy, after: TemplateCopy, *, before_is_base: bool = False) -> str:
    """From `before` to `after`; empty where they are equal or too long to be compared line by line.

    Many templates are written on one line: lines of more than `_LONG` characters are broken after tags.
    """
    left, right = _lines(before.text), _lines(after.text)
    if max(len(left), len(right)) > _MAX_INPUT_LINES:
        return ""
    name = f"{before.place} of the base" if before_is_base else before.place
    diff = unified_diff(left, right, _clipped(name), _clipped(after.place), n=3, lineterm="")
    return "\n".join(map(_clipped, islice(diff, _MAX_LINES)))


def _lines(text: str) -> list[str]:
    return [
        part
        for line in text.split("\n")
        for part in (_AFTER_A_TAG.split(line) if len(line) > _LONG else [line])
    ]


def _clipped(line: str) -> str:
    line = line.replace("\n", " ")
    return line if len(line) <= _MAX_WIDTH else line[: _MAX_WIDTH - 1] + "…"
