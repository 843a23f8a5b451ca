"""Measurements as a Parquet table, for pandas, DuckDB and whatever else reads columns (extra `parquet`).

One row per number: a spectrum of r values is r rows that differ in `position`. Findings are not part of
it; they are in the JSON report, which `digest` leads back to.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from io import BytesIO
from typing import Any

from ftsec_audit.errors import UsageError
from ftsec_audit.types import Report

COLUMNS = (
    "artifact", "digest", "base", "verdict", "module", "role", "layer", "statistic", "position", "value",
)  # fmt: skip


def render_all(reports: Sequence[Report]) -> bytes:
    """The measurements of all reports in one file, in their order; raises UsageError without pyarrow."""
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise UsageError("parquet needs pyarrow", hint="pip install 'ftsec-audit[parquet]'") from error
    text, number = pa.dictionary(pa.int32(), pa.string()), pa.int32()
    kinds = {"layer": number, "position": number, "value": pa.float64()}
    schema = pa.schema([(name, kinds.get(name, text)) for name in COLUMNS])
    output = BytesIO()
    with parquet.ParquetWriter(output, schema, compression="zstd") as writer:
        for report in reports:
            rows = list(_rows(report))
            columns = zip(*rows, strict=True) if rows else ([] for _ in COLUMNS)
            arrays = [pa.array(list(c), field.type) for c, field in zip(columns, schema, strict=True)]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
    return output.getvalue()


def _rows(report: Report) -> Iterator[tuple[Any, ...]]:
    card = report.artifact
    base = report.base.resolved if report.base else ""
    about = tuple(_text(part) for part in (card.resolved, card.digest, base, str(report.verdict)))
    for module in report.measurements:
        place = (_text(module.name), _text(module.role), module.layer)
        for statistic, value in module.values.items():
            for position, one in enumerate(value if isinstance(value, list) else [value]):
                yield (*about, *place, statistic, position, float(one))


def _text(text: str) -> str:
    """Arrow strings are UTF-8, which cannot hold the undecodable bytes of a file name."""
    return text.encode("utf-8", "backslashreplace").decode()
