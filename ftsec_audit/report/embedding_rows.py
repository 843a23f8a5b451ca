"""The token rows that changed, where they are few: which tokens, how far, and which moved alike."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ftsec_audit.report.phrases import clipped, number
from ftsec_audit.types import ModuleMeasurement, Report

MAX_ROWS = 50


@dataclass(frozen=True, kw_only=True)
class Row:
    row: int
    token: str
    """Empty where no detector could tell."""
    change: str
    share: float
    """Of the largest change, 0..1."""
    nearest: str
    """The changed row whose difference is most parallel, with the cosine; empty for a row alone."""


@dataclass(frozen=True, kw_only=True)
class ChangedRows:
    tensor: str
    changed: int
    total: int
    rows: tuple[Row, ...]


def changed_rows(report: Report) -> list[ChangedRows]:
    """The (un)embeddings of which a few rows changed."""
    tokens = {
        (str(lead.details.get("tensor")), lead.details.get("row")): lead.value
        for lead in report.leads
        if "row" in lead.details
    }
    found = (_changed_rows(module, tokens) for module in report.measurements)
    return [one for one in found if one is not None]


def _changed_rows(module: ModuleMeasurement, tokens: dict[tuple[str, object], str]) -> ChangedRows | None:
    ids, norms = _numbers(module, "changed_row_ids"), _numbers(module, "changed_row_norms")
    if not ids or len(ids) != len(norms):
        return None
    nearest = _numbers(module, "nearest_rows")
    cosines = _numbers(module, "nearest_row_cosines")
    alike = list(zip(nearest, cosines, strict=False)) if len(ids) > 1 else []
    largest = max((norm for norm in norms if math.isfinite(norm)), default=0.0)
    rows = [
        Row(
            row=int(id),
            token=tokens.get((module.name, int(id)), ""),
            change=number(norm),
            share=norm / largest if largest > 0 and 0 <= norm <= largest else 0.0,
            nearest=f"row {int(alike[i][0])}, cosine {number(alike[i][1])}" if i < len(alike) else "",
        )
        for i, (id, norm) in enumerate(zip(ids, norms, strict=True))
        if math.isfinite(id)
    ]
    count = module.values.get("changed_rows")
    return ChangedRows(
        tensor=clipped(module.name, 200),
        changed=int(count) if isinstance(count, (int, float)) and math.isfinite(count) else len(rows),
        total=module.shape[0] if module.shape else 0,
        rows=tuple(sorted(rows, key=lambda row: -row.share)[:MAX_ROWS]),
    )


def _numbers(module: ModuleMeasurement, key: str) -> list[float]:
    value = module.values.get(key)
    return value if isinstance(value, list) else []
