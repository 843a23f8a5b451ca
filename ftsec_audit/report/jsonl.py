"""One report per line: the documents of the `json` format without white space, for batches.

Lines of several reports may be put one below the other in any order; each stands for itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

from ftsec_audit.errors import UsageError
from ftsec_audit.report.json import document
from ftsec_audit.report.json import load as load_one
from ftsec_audit.types import Report


def render(report: Report) -> str:
    """One line that ends in a newline."""
    return json.dumps(document(report), separators=(",", ":")) + "\n"


def load(lines: Iterable[str]) -> Iterator[Report]:
    """The reports of a file's lines, one at a time; empty lines are skipped. Raises UsageError."""
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                yield load_one(line)
            except UsageError as error:
                raise UsageError(error.what, where=f"line {number}", hint=error.where) from error
