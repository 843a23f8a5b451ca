"""`ftsec-audit pin`: a list of models, with the commit that each one is now."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ftsec_audit.cli import exit_codes, terminal
from ftsec_audit.cli.options import option
from ftsec_audit.errors import SourceError

if TYPE_CHECKING:
    from ftsec_audit.models_list import Written


@click.command("pin", no_args_is_help=True)
@click.argument("models", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False))
@option("--check", is_flag=True, help="Change nothing, ask nobody; exit 1 when an entry has no commit.")
@option("--offline", is_flag=True, help="Use only what is on this machine already.")
def command(models: Path, check: bool, offline: bool) -> int:
    """Write into a list of models the commit that each branch or tag is now.

    Models and bases are pinned; comments, order and layout of the file stay as they are. Local paths have
    no commit and are left alone. What s3://bucket/prefix holds has none either: it gets the state of its
    listing, with which it is refused once an object was added, replaced or removed. To move on to a newer
    commit, put the branch back and pin again.

    \b
    Examples:
      ftsec-audit pin models.yaml
      ftsec-audit pin models.yaml --check      in a pipeline: is everything pinned?

    \b
    Exit codes: 0 all pinned · 1 with --check: something is not · 2 a commit could not be had
    """
    from ftsec_audit import models_list, user_yaml

    text = user_yaml.text_of(models)
    wanting, codes = _wanting(models_list.written(text, where=str(models)), models)
    if check:
        for reference in wanting:
            terminal.show(f"{models}:{reference.line}: {reference.reference} names no commit")
        return exit_codes.worst([*codes, exit_codes.FAILED if wanting else exit_codes.OK])
    exchanged: dict[Written, str] = {}
    for reference in wanting:
        try:
            exchanged[reference] = _now(reference.reference, offline=offline)
        except SourceError as error:
            terminal.complain(f"{models}:{reference.line}: {error}")
            codes.append(exit_codes.COULD_NOT_RUN)
    if exchanged:
        _replace(models, models_list.rewritten(text, exchanged, where=str(models)))
    for reference, new in exchanged.items():
        terminal.show(f"{models}:{reference.line}: {reference.reference} → {new}")
    return exit_codes.worst(codes)


def _wanting(written: tuple[Written, ...], models: Path) -> tuple[list[Written], list[int]]:
    """The references whose meaning can change, and the exit codes of those that mean nothing."""
    from ftsec_audit.sources import pins

    wanting, codes = [], [exit_codes.OK]
    for reference in written:
        try:
            if pins.is_open(reference.reference):
                wanting.append(reference)
        except SourceError as error:
            terminal.complain(f"{models}:{reference.line}: {error}")
            codes.append(exit_codes.COULD_NOT_RUN)
    return wanting, codes


def _now(reference: str, *, offline: bool) -> str:
    from ftsec_audit.sources import pins

    return pins.pinned(reference, offline=offline)


def _replace(path: Path, text: str) -> None:
    """The file's content, all or nothing; a link stays a link, and permissions stay."""
    from ftsec_audit import atomic_file

    real = path.resolve()
    mode = real.stat().st_mode
    atomic_file.write(real, text)
    real.chmod(mode & 0o7777)
