"""Measurements as a Parquet table, for pandas, DuckDB and whatever else reads columns (extra `parquet`).

One row per number: a spectrum of r values is r rows that differ in `position`. Findings are not part of
it; they are in the JSON report, which `digest` leads back to.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any

from ftsec_audit import module_measurements
from ftsec_audit.errors import UsageError
from ftsec_audit.types import Report

if TYPE_CHECKING:
    import pyarrow

COLUMNS = ("artifact", "digest", "base", "verdict", *module_measurements.COLUMNS)


def render_all(reports: Sequence[Report]) -> bytes:
    """The measurements of all reports in one file, in their order; raises UsageError without pyarrow."""
    table = schema()
    import pyarrow as pa
    from pyarrow import parquet

    output = BytesIO()
    with parquet.ParquetWriter(output, table, compression="zstd") as writer:
        for report in reports:
            found = list(rows(report))
            columns = zip(*found, strict=True) if found else ([] for _ in COLUMNS)
            arrays = [pa.array(list(c), field.type) for c, field in zip(columns, table, strict=True)]
            writer.write_table(pa.Table.from_arrays(arrays, schema=table))
    return output.getvalue()


def schema() -> pyarrow.Schema:
    """The columns and their types; raises UsageError without pyarrow."""
    try:
        import pyarrow as pa
    except ImportError as error:
        raise UsageError("parquet needs pyarrow", hint="pip install 'ftsec-audit[parquet]'") from error
    words, number = pa.dictionary(pa.int32(), pa.string()), pa.int32()
    kinds = {"layer": number, "position": number, "value": pa.float64()}
    return pa.schema([(name, kinds.get(name, words)) for name in COLUMNS])


def rows(report: Report) -> Iterator[tuple[Any, ...]]:
    """Every number of a report, as a row of the table."""
    card = report.artifact
    base = report.base.resolved if report.base else ""
    about = tuple(text(part) for part in (card.resolved, card.digest, base, str(report.verdict)))
    for name, role, *number in report.measurements.rows():
        yield (*about, text(name), text(role), *number)


def text(text: str) -> str:
    """Arrow strings are UTF-8, which cannot hold the undecodable bytes of a file name."""
    return text.encode("utf-8", "backslashreplace").decode()
