"""A store as Parquet tables, for pandas, DuckDB and whatever else reads columns (extra `parquet`).

    artifacts.parquet     one row per document: verdict, suspicion, seconds, why there is no report
    detections.parquet    one row per rule that was detected
    measurements.parquet  one row per number, as `report -f parquet` writes them

`key` joins the first two, `digest` the third. Documents are read one after the other, so a store of any
size is exported in little memory. The tables appear when they are whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftsec_audit.batch.job import Row
from ftsec_audit.batch.record import Record
from ftsec_audit.errors import UsageError
from ftsec_audit.report import parquet as measurements

if TYPE_CHECKING:
    import pyarrow

_AT_ONCE = 2_000
"""Rows of a table in memory."""
_NUMBERS = {"size": "int64", "memory": "int64", "seconds": "float64", "suspicion": "float64"}
_ARTIFACTS = tuple(field.name for field in fields(Row) if field.name != "detected")
_DETECTIONS = ("key", "reference", "rule", "severity", "confidence", "summary")


def export(records: Iterable[Record], folder: Path) -> dict[str, int]:
    """Write the tables; returns how many rows each has. Raises UsageError without pyarrow, and OSError."""
    arrow = _arrow()
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        artifacts = stack.enter_context(_Table(folder / "artifacts.parquet", _schema(arrow, _ARTIFACTS)))
        detections = stack.enter_context(_Table(folder / "detections.parquet", _schema(arrow, _DETECTIONS)))
        numbers = stack.enter_context(_Table(folder / "measurements.parquet", measurements.schema()))
        for record in records:
            row = record.row()
            artifacts.add(_storable(getattr(row, name) for name in _ARTIFACTS))
            for found in row.detected:
                detections.add(_storable([row.key, row.reference, *asdict(found).values()]))
            if record.report is not None:
                for number in measurements.rows(record.report):
                    numbers.add(number)
    return {table.path.stem: table.rows for table in (artifacts, detections, numbers)}


class _Table:
    """A Parquet file that is written in pieces, beside its place, and renamed into it at the end."""

    def __init__(self, path: Path, schema: pyarrow.Schema) -> None:
        from pyarrow import parquet

        self.path, self.rows, self._schema = path, 0, schema
        self._part = path.with_name(f".{path.name}.part")
        self._writer = parquet.ParquetWriter(self._part, schema, compression="zstd")
        self._pending: list[Any] = []

    def __enter__(self) -> _Table:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self._write()
        self._writer.close()
        if kind is None:
            self._part.replace(self.path)
        else:
            self._part.unlink(missing_ok=True)

    def add(self, row: Iterable[Any]) -> None:
        self._pending.append(tuple(row))
        self.rows += 1
        if len(self._pending) >= _AT_ONCE:
            self._write()

    def _write(self) -> None:
        if self._pending:
            import pyarrow

            columns = zip(*self._pending, strict=True)
            arrays = [pyarrow.array(list(c), f.type) for c, f in zip(columns, self._schema, strict=True)]
            self._writer.write_table(pyarrow.Table.from_arrays(arrays, schema=self._schema))
            self._pending.clear()


def _schema(arrow: Any, names: Iterable[str]) -> pyarrow.Schema:
    return arrow.schema([(name, getattr(arrow, _NUMBERS.get(name, "string"))()) for name in names])


def _storable(values: Iterable[Any]) -> Iterator[Any]:
    """Words as plain strings that UTF-8 can hold."""
    for value in values:
        yield measurements.text(str(value)) if isinstance(value, str) else value


def _arrow() -> Any:
    try:
        import pyarrow
    except ImportError as error:
        raise UsageError("parquet needs pyarrow", hint="pip install 'ftsec-audit[parquet]'") from error
    return pyarrow
