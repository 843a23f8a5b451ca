"""What the detectors measured, module by module, and the same as a table with one number in each row."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ftsec_audit.errors import UsageError

if TYPE_CHECKING:
    import pandas

COLUMNS = ("module", "role", "layer", "statistic", "position", "value")


@dataclass(frozen=True, kw_only=True)
class ModuleMeasurement:
    """Everything the detectors measured on one tensor or adapted module."""

    name: str
    role: str
    """The module type: `q_proj`, `down_proj`, `embed_tokens`, …"""
    layer: int | None
    shape: tuple[int, ...]
    values: dict[str, float | list[float]] = field(default_factory=dict)
    """`detector-key.statistic` → number or short vector (e.g. a singular spectrum)."""


class ModuleMeasurements(tuple[ModuleMeasurement, ...]):
    """The modules of a report, in their order."""

    __slots__ = ()

    def rows(self) -> Iterator[tuple[str, str, int | None, str, int, float]]:
        """`COLUMNS` of every number: a spectrum of r values is r rows that differ in `position`."""
        for module in self:
            for statistic, value in module.values.items():
                for position, one in enumerate(value if isinstance(value, list) else [value]):
                    yield module.name, module.role, module.layer, statistic, position, float(one)

    def to_pandas(self) -> pandas.DataFrame:
        """The rows as a data frame; raises UsageError without pandas."""
        try:
            import pandas
        except ImportError as error:
            hint = "pip install 'ftsec-audit[pandas]'"
            raise UsageError("measurements as a data frame need pandas", hint=hint) from error
        kinds = {"layer": "Int64", "position": "int64", "value": "float64"}
        frame = pandas.DataFrame.from_records(list(self.rows()), columns=list(COLUMNS))
        return frame.astype({name: kinds.get(name, "str") for name in COLUMNS})

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, handler: Any) -> Any:
        """In schemas: the list that it is."""
        return handler(tuple[ModuleMeasurement, ...])
