"""Calibration packs: versioned files of what was measured on benign artifacts, and on which ones.

A pack holds feature vectors and provenance, never weights. It is JSON, optionally gzipped.
"""

from __future__ import annotations

import gzip
import json
import math
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from ftsec_audit.calibration.recipe import Recipe
from ftsec_audit.calibration.spectra import LEVELS, Shape, kept
from ftsec_audit.errors import UsageError

SCHEMA = 1
_MAX_BYTES = 256 << 20
_DIGITS = 6
_SHARE_DIGITS = 4
"""Of shares, which are drawn and not compared."""


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where one benign artifact came from: enough to fetch exactly those bytes again."""

    repository: str
    """The unit of independence: artifacts of one repository share one vote."""
    commit: str = ""
    path: str = ""
    sha256: str = ""
    licence: str = ""
    base: str = ""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One benign artifact: origin, recipe, its features by feature set, and the shape of its spectra."""

    provenance: Provenance
    recipe: Recipe
    features: Mapping[str, Mapping[str, float]]
    spectra: tuple[Shape, ...] = ()
    """By module type and rank; none in packs that were written before 2026.11.1."""


@dataclass(frozen=True, kw_only=True)
class Pack:
    """A benign bank as it is stored and shipped."""

    name: str
    version: str
    entries: tuple[Entry, ...]
    detectors: Mapping[str, str] = field(default_factory=dict)
    """Feature set → label of the detector that computed it."""
    description: str = ""

    @property
    def id(self) -> str:
        return f"{self.name}@{self.version}"

    @classmethod
    def load(cls, path: Path) -> Pack:
        """Read and check a pack. Raises `UsageError` naming what is wrong with it."""
        try:
            return cls._from_json(json.loads(_read(path)))
        except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UsageError(
                f"is not a calibration pack ({type(error).__name__}: {error})",
                where=str(path),
                hint="build one with `ftsec-audit calibrate`",
            ) from error

    def save(self, path: Path) -> None:
        """Write the pack; equal packs give equal bytes. Gzipped when the name ends in `.gz`."""
        text = json.dumps(self._to_json(), ensure_ascii=False, separators=(",", ":"), allow_nan=False) + "\n"
        data = text.encode()
        path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)

    def merged_with(self, other: Pack, *, version: str) -> Pack:
        """Both packs' entries; of entries with the same file digest, `other`'s."""
        replaced = {entry.provenance.sha256 for entry in other.entries} - {""}
        kept = tuple(entry for entry in self.entries if entry.provenance.sha256 not in replaced)
        return Pack(
            name=self.name,
            version=version,
            entries=kept + other.entries,
            detectors={**self.detectors, **other.detectors},
            description=self.description,
        )

    def _to_json(self) -> dict[str, Any]:
        """Columns are spelled once per feature set; a missing value is null."""
        columns = {
            name: sorted(
                {
                    key
                    for entry in self.entries
                    for key, value in entry.features.get(name, {}).items()
                    if math.isfinite(value)
                }
            )
            for name in sorted({name for entry in self.entries for name in entry.features})
        }
        return {
            "schema": SCHEMA,
            "name": self.name,
            "version": self.version,
            "description": self.description,
            "detectors": dict(self.detectors),
            "columns": columns,
            "entries": [
                {
                    "provenance": asdict(entry.provenance),
                    "recipe": asdict(entry.recipe),
                    "features": {
                        name: [_rounded(values.get(key)) for key in columns[name]]
                        for name, values in entry.features.items()
                    },
                    "spectra": [_written(shape) for shape in entry.spectra],
                }
                for entry in self.entries
            ],
        }

    @classmethod
    def _from_json(cls, document: Any) -> Pack:
        if document["schema"] != SCHEMA:
            raise ValueError(f"schema {document['schema']!r}, expected {SCHEMA}")
        columns = document["columns"]
        return cls(
            name=str(document["name"]),
            version=str(document["version"]),
            description=str(document.get("description", "")),
            detectors={str(k): str(v) for k, v in document.get("detectors", {}).items()},
            entries=tuple(
                Entry(
                    provenance=Provenance(**_strings(Provenance, raw["provenance"])),
                    recipe=Recipe(**_strings(Recipe, raw["recipe"])),
                    features={
                        str(name): _present(columns[name], values) for name, values in raw["features"].items()
                    },
                    spectra=tuple(_shape(shape) for shape in raw.get("spectra", ())),
                )
                for raw in document["entries"]
            ),
        )


def _read(path: Path) -> bytes:
    """The file's bytes, unpacked, refusing to grow beyond a bound."""
    data = path.read_bytes() if path.stat().st_size <= _MAX_BYTES else b""
    if data[:2] != b"\x1f\x8b":
        return data
    unpacker = zlib.decompressobj(wbits=31)
    text = unpacker.decompress(data, _MAX_BYTES)
    if unpacker.unconsumed_tail:
        raise ValueError(f"larger than {_MAX_BYTES} bytes")
    return text


def _rounded(value: float | None) -> float | None:
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.{_DIGITS}g}")


def _present(columns: list[str], values: list[float | None]) -> dict[str, float]:
    pairs = zip(columns, values, strict=True)
    return {str(key): float(value) for key, value in pairs if value is not None and math.isfinite(value)}


def _written(shape: Shape) -> dict[str, Any]:
    shares = [[float(f"{share:.{_SHARE_DIGITS}g}") for share in row] for row in shape.shares]
    return {
        "role": shape.role,
        "block": shape.block,
        "rank": shape.rank,
        "modules": shape.modules,
        "shares": shares,
    }


def _shape(raw: Mapping[str, Any]) -> Shape:
    """Raises ValueError for what no spectrum can be."""
    shares = tuple(tuple(float(share) for share in row) for row in raw["shares"])
    rank, modules = int(raw["rank"]), int(raw["modules"])
    well_formed = len(shares) == len(LEVELS) and {len(row) for row in shares} == {kept(rank)}
    if not well_formed or not all(0 <= share <= 1 for row in shares for share in row):
        raise ValueError(f"a spectrum of {rank} values has other shares")
    return Shape(role=str(raw["role"]), block=str(raw["block"]), rank=rank, modules=modules, shares=shares)


def _strings(kind: type[Any], raw: Mapping[str, Any]) -> dict[str, str]:
    """The known fields of a dataclass of strings; unknown ones are a newer minor version's."""
    return {spec.name: str(raw[spec.name]) for spec in fields(kind) if spec.name in raw}
