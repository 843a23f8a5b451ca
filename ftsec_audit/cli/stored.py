"""`ftsec-audit report --store`: what a batch has stored, searched through its index."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ftsec_audit.cli import exit_codes, terminal
from ftsec_audit.cli.options import day, option
from ftsec_audit.errors import UsageError
from ftsec_audit.types import Verdict

if TYPE_CHECKING:
    from ftsec_audit.batch.index import Filter, Index
    from ftsec_audit.batch.job import Row
    from ftsec_audit.batch.store import Store
    from ftsec_audit.types import Report

F = TypeVar("F", bound=Callable[..., Any])

_JUDGING = ("policy", "fail_on", "strict", "ignorefile", "baseline")


def stored_options(command: F) -> F:
    """What is searched, and for what."""
    for decorate in reversed(
        (
            option("--store", metavar="DIR", help="Results of a batch; also an fsspec URL."),
            option("--index", metavar="URL", help="Its database.  [default: index.sqlite in the store]"),
            option("--failed", is_flag=True, help="Of a store: artifacts without a report, and why."),
            option("--verdict", type=click.Choice([str(v) for v in Verdict]), help="Of a store: only these."),
            option("--since", type=day, metavar="DATE", help="Of a store: scanned on or after this day."),
            option("--rule", metavar="ID", help="Of a store: where this rule, or family, was detected."),
            option(
                "--export",
                type=click.Path(path_type=Path, file_okay=False),
                metavar="DIR",
                help="Of a store: write what is found as Parquet tables.",
            ),
            option("--limit", type=click.IntRange(min=1), metavar="N", help="Of a store: at most so many."),
        )
    ):
        command = decorate(command)
    return command


def from_store(options: dict[str, Any]) -> int:
    """Lists what is found, or renders it where formats are asked for; the exit code."""
    from ftsec_audit.batch.store import Store
    from ftsec_audit.batch.summaries import listing

    if "://" not in options["store"] and not Path(options["store"]).is_dir():
        raise UsageError("no such folder", where=options["store"])
    store = Store(options["store"])
    index = open_index(options["store"], options["index"])
    for damage in index.sync(store):
        terminal.complain(damage)
    rows = index.rows(_filter(options))
    if options["export"]:
        return _export(store, rows, options["export"])
    if options["failed"]:
        lines = list(listing(rows))
        terminal.show("\n".join(lines) or "nothing failed")
        return exit_codes.COULD_NOT_RUN if lines else exit_codes.OK
    if any(options[name] for name in _JUDGING) or options["outputs"] or options["output"]:
        return _whole(store, rows, options)
    codes = set()
    for row in rows:
        terminal.show("\n".join(listing([row])))
        codes.add(exit_codes.of_verdict(row.verdict or Verdict.INCONCLUSIVE, exit_zero=options["exit_zero"]))
    return exit_codes.worst(codes)


def _export(store: Store, rows: Iterator[Row], folder: Path) -> int:
    from ftsec_audit.batch.export import export

    records = (record for row in rows if (record := store.get(row.name)))
    try:
        written = export(records, folder)
    except OSError as error:
        raise UsageError(error.strerror or "cannot be written", where=str(folder)) from error
    terminal.show("\n".join(f"{folder / name}.parquet: {count:,} rows" for name, count in written.items()))
    return exit_codes.OK


def open_index(store: str, url: str | None) -> Index:
    """The index of a store; raises UsageError."""
    from ftsec_audit.batch.index import Index

    if url is None:
        if "://" in store:
            raise UsageError("a remote store has no index of its own", hint="name a database with --index")
        url = f"sqlite:///{Path(store).absolute() / 'index.sqlite'}"
    return Index(url)


def _filter(options: dict[str, Any]) -> Filter:
    from ftsec_audit.batch.index import Filter

    since = options["since"]
    return Filter(
        failed=options["failed"],
        verdict=Verdict(options["verdict"]) if options["verdict"] else None,
        since=since.strftime("%Y-%m-%dT%H:%M:%SZ") if since else "",
        rule=(options["rule"] or "").upper(),
        limit=options["limit"],
    )


def _whole(store: Store, rows: Iterator[Row], options: dict[str, Any]) -> int:
    """The reports themselves, one at a time, judged again if that is asked for."""
    from ftsec_audit import api
    from ftsec_audit.cli.output import Destinations
    from ftsec_audit.cli.verdicts import Judge

    chosen = {name: options[name] for name in _JUDGING}
    judging = Judge.of(**chosen).options() if any(chosen.values()) else None
    destinations = Destinations.of(options["outputs"], options["output"], several=True)
    codes = []
    for report in _reports(store, rows):
        judged = api.judged(report, **judging) if judging else report
        destinations.write(judged)
        codes.append(exit_codes.of_verdict(judged.verdict, exit_zero=options["exit_zero"]))
    if destinations.failures:
        codes.append(exit_codes.COULD_NOT_RUN)
    return exit_codes.worst(codes)


def _reports(store: Store, rows: Iterator[Row]) -> Iterator[Report]:
    for row in rows:
        record = store.get(row.name)
        if record and record.report:
            yield record.report
