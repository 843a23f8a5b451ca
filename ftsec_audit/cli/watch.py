"""`ftsec-audit watch`: what is uploaded to the Hub from now on."""

from __future__ import annotations

import signal
import threading
from typing import Any

import click

from ftsec_audit.cli import exit_codes, terminal
from ftsec_audit.cli.options import comma_list, day, duration, option
from ftsec_audit.cli.scanning import Opened, store_options
from ftsec_audit.errors import UsageError


@click.command("watch", no_args_is_help=True)
@option("--author", default="", metavar="ORG", help="Models of this organisation or person.")
@option("--hub-filter", default="", type=comma_list, metavar="TAGS", help="With these tags: peft,lora.")
@option("--base-model", default="", metavar="REPO", help="Models that name this base.")
@option(
    "--since", type=day, metavar="DATE", help="At first also what changed since this day.  [default: now]"
)
@option("--every", type=duration, default="10m", show_default=True, metavar="DURATION", help="Between polls.")
@option("--once", is_flag=True, help="Poll once, scan what is new, then end: for cron.")
@option("--offline", is_flag=True, hidden=True)
@store_options
def command(batch_options: tuple[str, ...], **options: Any) -> int:
    """Scan what is uploaded to the Hub from now on.

    The Hub is asked for a query every so often; every commit that is new is put into the queue and scanned
    once. Up to when it was asked is remembered: after a pause, or whatever ended it, nothing is missed.
    What follows -- are options of batch.

    \b
    Examples:
      ftsec-audit watch --author org --store results/
      ftsec-audit watch --base-model org/base --hub-filter peft --every 1m -- --profile quick -j 4
      ftsec-audit watch --author org --once --since 2026-01-01

    Exit codes: 0 ended by Ctrl-C or SIGTERM · with --once: 0 all polled and scanned · 2 the Hub or a scan
    could not be reached.
    """
    opened = Opened.of({**options, "batch_options": batch_options})
    from ftsec_audit.service.watch import Watch
    from ftsec_audit.sources.connection import Connection
    from ftsec_audit.sources.search import HubQuery

    query = HubQuery(
        author=options["author"],
        filters=options["hub_filter"],
        base_model=options["base_model"],
        since=options["since"],
    )
    if not (query.author or query.filters or query.base_model):
        raise UsageError("nothing to watch", hint="name --author, --hub-filter or --base-model")
    watch = Watch(opened.queue, query, Connection.from_environment)
    scanner = opened.scanner(_tell)
    if options["once"]:
        terminal.remark(f"{len(watch.poll()):,} new")
        scanner.run(until_empty=True)
        return exit_codes.COULD_NOT_RUN if scanner.problem else exit_codes.OK
    stopping = threading.Event()

    def end(*_: object) -> None:
        stopping.set()
        scanner.stop()

    signal.signal(signal.SIGTERM, end)
    polling = {"every": options["every"], "told": terminal.remark}
    threading.Thread(target=watch.run, args=(stopping,), kwargs=polling, daemon=True).start()
    try:
        scanner.run()
    except KeyboardInterrupt:
        end()
    terminal.remark("ended; what was not finished is scanned the next time")
    return exit_codes.OK


def _tell(event: dict[str, Any]) -> None:
    outcome = event["verdict"] or f"{event['failure']}: {event['reason']}"
    terminal.remark(f"{outcome:<12}  {event['reference']}")
