"""Reports read back from files: a JSON document each, or JSON lines."""

from __future__ import annotations

from pathlib import Path

from ftsec_audit.errors import UsageError
from ftsec_audit.report import json, jsonl
from ftsec_audit.types import Report


def load(path: Path) -> tuple[Report, ...]:
    """The reports of a `.jsonl` or `.json` file; raises UsageError naming the file."""
    try:
        if path.stat().st_size > json.LIMITS.size:
            raise UsageError(f"is larger than {json.LIMITS.size:,} bytes", where=str(path))
        data = path.read_bytes()
        if path.suffix == ".jsonl":
            return tuple(jsonl.load(data.decode("utf-8").splitlines()))
        return (json.load(data),)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(str(error), where=str(path)) from error
    except UsageError as error:
        where = f"{path}: {error.where}" if error.where else str(path)
        raise UsageError(error.what, where=where, hint=error.hint) from error
