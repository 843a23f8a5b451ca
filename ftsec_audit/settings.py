"""Defaults for the command line from `ftsec-audit.yaml` or `[tool.ftsec-audit]` in `pyproject.toml`.

Only the working directory is looked at, never a folder that is being audited: a repository must not
configure its own examination.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftsec_audit.errors import UsageError

_FILE = "ftsec-audit.yaml"
_PYPROJECT = "pyproject.toml"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Values by option name, `_` for `-`, and the file they come from."""

    path: Path
    values: dict[str, Any]

    @classmethod
    def discover(cls, directory: Path) -> Settings | None:
        """The settings of a directory; `ftsec-audit.yaml` wins. Raises UsageError for a broken file."""
        if (path := directory / _FILE).is_file():
            return cls.load(path)
        path = directory / _PYPROJECT
        if path.is_file() and b"ftsec-audit" in path.read_bytes():
            table = _toml(path).get("tool", {}).get("ftsec-audit")
            return None if table is None else cls._of(path, table)
        return None

    @classmethod
    def load(cls, path: Path) -> Settings:
        """The settings in one file; raises UsageError."""
        if path.suffix == ".toml":
            return cls._of(path, _toml(path).get("tool", {}).get("ftsec-audit", {}))
        import yaml

        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise UsageError(str(error), where=str(path)) from error
        return cls._of(path, content or {})

    @classmethod
    def _of(cls, path: Path, content: object) -> Settings:
        if not isinstance(content, dict):
            raise UsageError("must be a mapping from option names to values", where=str(path))
        return cls(path=path, values={str(key).replace("-", "_"): value for key, value in content.items()})

    def checked(self, known: Iterable[str]) -> dict[str, Any]:
        """The values; raises UsageError for a name that is no option."""
        names = sorted(known)
        for key in self.values:
            if key not in names:
                import difflib

                close = difflib.get_close_matches(key, names, n=1)
                hint = f"did you mean {close[0].replace('_', '-')}?" if close else ""
                raise UsageError(f"{key.replace('_', '-')} is no setting", where=str(self.path), hint=hint)
        return self.values

    def belongs_to(self, target: str) -> bool:
        """Whether the file lies in what `target` names, or beside it when that is a file."""
        path = Path(target).expanduser()
        if not path.exists():
            return False
        folder = path if path.is_dir() else path.parent
        return self.path.resolve().is_relative_to(folder.resolve())


def _toml(path: Path) -> dict[str, Any]:
    import tomllib

    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(str(error), where=str(path)) from error
