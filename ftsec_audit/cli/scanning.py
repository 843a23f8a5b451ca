"""What `serve` and `watch` share: store, index, queue, and the scanner that empties it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from ftsec_audit.cli.options import option
from ftsec_audit.cli.stored import open_index
from ftsec_audit.errors import UsageError

if TYPE_CHECKING:
    from ftsec_audit.batch.index import Index
    from ftsec_audit.batch.store import Store
    from ftsec_audit.service.queue import Queue
    from ftsec_audit.service.scanner import Scanner

F = TypeVar("F", bound=Callable[..., Any])

_OURS = (
    *("targets", "store", "index", "author", "hub_filter", "base_model", "since", "limit", "shard"),
    *("dry_run", "events", "outputs", "quiet", "no_progress"),
)
"""Parameters of `batch` that `serve` and `watch` set themselves, or that make no sense for a queue."""
_SECRET = ("TOKEN", "HUB_SECRET", "MLFLOW_SECRET", "QUEUE")


def store_options(command: F) -> F:
    """Where results and the queue are kept, and what follows `--`."""
    for decorate in reversed(
        (
            click.argument("batch_options", nargs=-1, type=click.UNPROCESSED, metavar="[-- BATCH-OPTION]..."),
            option(
                *("--store",),
                default="ftsec-results",
                show_default=True,
                metavar="DIR",
                help="Results; also an fsspec URL.",
            ),
            option(
                "--index", metavar="URL", help="Database of results.  [default: index.sqlite in the store]"
            ),
            option(
                "--queue",
                metavar="URL",
                help="Database of what is to be scanned.  [default: that of --index, or queue.sqlite in the "
                "store]",
            ),
        )
    ):
        command = decorate(command)
    return command


@dataclass(frozen=True, kw_only=True)
class Opened:
    """The databases and the store that both commands work on."""

    store: Store
    index: Index
    queue: Queue
    options: tuple[str, ...]
    environment: dict[str, str]

    @classmethod
    def of(cls, options: dict[str, Any]) -> Opened:
        """Raises UsageError."""
        try:
            from ftsec_audit.batch.store import Store
            from ftsec_audit.service.queue import Queue
        except ImportError as error:
            raise needs_extra(error) from error

        batch_options = _checked(options["batch_options"])
        store = Store(options["store"])
        return cls(
            store=store,
            index=open_index(options["store"], options["index"]),
            queue=Queue(_queue_url(options)),
            options=("--store", options["store"], *batch_options),
            environment=_environment(options["index"]),
        )

    def scanner(self, told: Callable[[dict[str, Any]], None]) -> Scanner:
        from ftsec_audit.service.scanner import Scanner

        return Scanner(
            self.queue, self.store, self.index, self.options, environment=self.environment, told=told
        )


def needs_extra(error: ImportError) -> UsageError:
    return UsageError(f"needs a package: {error.name}", hint="pip install 'ftsec-audit[serve]'")


def _queue_url(options: dict[str, Any]) -> str:
    if options["queue"]:
        return str(options["queue"])
    if options["index"] and not options["index"].startswith("sqlite"):
        return str(options["index"])
    if "://" in options["store"]:
        raise UsageError("a remote store has no queue of its own", hint="name a database with --queue")
    return f"sqlite:///{Path(options['store']).absolute() / 'queue.sqlite'}"


def _checked(words: tuple[str, ...]) -> tuple[str, ...]:
    """Options for `batch`, as they were given; raises UsageError, or what click raises, for wrong ones."""
    from ftsec_audit.cli.batch import command

    context = command.make_context("batch", ["--no-progress", *words])
    for name in _OURS:
        given = context.get_parameter_source(name) is ParameterSource.COMMANDLINE and name != "no_progress"
        if given and context.params[name]:
            raise UsageError(f"{name.replace('_', '-')} cannot stand after --", where="options of batch")
    return words


def _environment(index: str | None) -> dict[str, str]:
    """Of a child: no secrets, and none of the variables that would tell `batch` what to scan."""
    ours = {f"FTSEC_AUDIT_{name.upper()}" for name in (*_OURS, *_SECRET)}
    kept = {name: value for name, value in os.environ.items() if name not in ours}
    return kept | ({"FTSEC_AUDIT_INDEX": index} if index else {})
