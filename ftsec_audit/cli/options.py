"""Options that several commands share, and how every option is also an environment variable."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import click

from ftsec_audit.errors import UsageError
from ftsec_audit.report import BINARY, FORMATS
from ftsec_audit.stacks import Further

F = TypeVar("F", bound=Callable[..., Any])


def option(*names: str, **settings: Any) -> Callable[[F], F]:
    """`click.option` that also reads `FTSEC_AUDIT_<FLAG>`."""
    flag = max((name.partition("/")[0] for name in names), key=len).lstrip("-")
    settings.setdefault("envvar", "FTSEC_AUDIT_" + flag.upper().replace("-", "_"))
    return click.option(*names, **settings)


def comma_list(value: Any) -> tuple[str, ...]:
    """`FTA1,FTA4` or, in a settings file, a list."""
    items = value.split(",") if isinstance(value, str) else list(value)
    return tuple(str(item).strip() for item in items if str(item).strip())


@dataclass(frozen=True)
class Output:
    """One rendering, and where it goes; no path is standard output."""

    format: str
    path: Path | None = None
    wants_folder: bool = False
    """The path was written with a slash at its end."""

    @classmethod
    def parse(cls, value: Any) -> Output:
        """`FMT` or `FMT=PATH`."""
        if isinstance(value, Output):
            return value
        format, _, path = str(value).partition("=")
        if format not in (*FORMATS, *BINARY):
            raise click.BadParameter(f"{format!r} is none of {', '.join((*FORMATS, *BINARY))}.")
        if format in BINARY and not path:
            raise click.BadParameter(f"{format} is a file: write {format}=PATH.")
        return cls.to(format, path) if path else cls(format)

    @classmethod
    def to(cls, format: str, path: str) -> Output:
        return cls(format, Path(path), wants_folder=path.endswith("/"))

    def is_folder(self, *, several: bool) -> bool:
        """Whether each report gets a file of its own below the path, which is or can only be a folder."""
        if self.path is None:
            return False
        new = several and not self.path.exists() and not self.path.suffix
        return self.wants_folder or self.path.is_dir() or new


def size(value: Any) -> int:
    """`500MB`, `2GiB` or a number of bytes, in bytes."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(I?)B?", str(value).strip().upper())
    if not match:
        raise click.BadParameter(f"{value!r} is no size; write 500MB, 2GiB or a number of bytes.")
    number, prefix, binary = match.groups()
    return int(float(number) * (1024 if binary else 1000) ** " KMGT".index(prefix or " "))


def duration(value: Any) -> float:
    """`90`, `90s`, `5m` or `1h`, in seconds."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", str(value).strip().lower())
    if not match:
        raise click.BadParameter(f"{value!r} is no duration; write 90, 90s, 5m or 1h.")
    number, unit = match.groups()
    return float(number) * {"": 1, "s": 1, "m": 60, "h": 3600}[unit]


def further(value: Any) -> Further:
    """`REF` or `REF=SCALE`."""
    try:
        return Further.parse(value)
    except UsageError as error:
        raise click.BadParameter(str(error)) from error


def day(value: Any) -> datetime:
    """`2026-01-31` or `2026-01-31T12:00Z`; UTC where no zone is given."""
    try:
        moment = datetime.fromisoformat(str(value))
    except ValueError:
        raise click.BadParameter(f"{value!r} is no date; write 2026-01-31 or 2026-01-31T12:00Z.") from None
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)


def output_options(command: F) -> F:
    """`-f` and `-o`."""
    command = option(
        "-o",
        "--output",
        metavar="PATH",
        help="Where a single -f FMT without a path is written; with several targets, a folder.",
    )(command)
    return option(
        "-f",
        "--format",
        "outputs",
        type=Output.parse,
        metavar="FMT[=PATH]",
        multiple=True,
        help=f"Report format, repeatable: {', '.join((*FORMATS, *BINARY))}. =PATH writes it to a file.",
    )(command)


def policy_options(command: F) -> F:
    """What decides over the verdict and the exit code."""
    for decorate in reversed(
        (
            option(
                "--policy",
                metavar="FILE",
                help="Policy file, or one of default, strict, permissive.  [default: default]",
            ),
            option(
                "--fail-on",
                type=click.Choice(["critical", "high", "medium", "low", "info", "never"]),
                help="Block from this severity on, in place of the policy's own.",
            ),
            option("--strict", is_flag=True, help="Short for --policy strict."),
            option("--exit-zero", is_flag=True, help="Exit 0 for failed and inconclusive; 2 stays 2."),
            option(
                "--ignorefile",
                type=click.Path(path_type=Path, dir_okay=False),
                help="Accepted findings, each with a statement and an expiry date.",
            ),
            option(
                "--baseline",
                type=click.Path(path_type=Path, dir_okay=False),
                help="Earlier JSON report: its findings on the same bytes no longer count.",
            ),
        )
    ):
        command = decorate(command)
    return command
