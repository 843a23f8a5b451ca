"""`ftsec-audit batch`: many artifacts, resumable."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from ftsec_audit.cli import terminal
from ftsec_audit.cli.options import Output, comma_list, day, duration, option, policy_options, size

_SUMMARIES = ("table", "json", "html", "markdown")


def _shard(value: str) -> tuple[int, int]:
    number, _, of = value.partition("/")
    if not (number.isdigit() and of.isdigit() and 1 <= int(number) <= int(of)):
        raise click.BadParameter(f"{value!r} is no shard; write 1/8 to 8/8.")
    return int(number), int(of)


def _summary_format(value: str) -> Output:
    output = Output.parse(value)
    if output.format not in _SUMMARIES:
        raise click.BadParameter(f"a summary is one of {', '.join(_SUMMARIES)}.")
    return output


@click.command("batch", no_args_is_help=True)
@click.argument("targets", nargs=-1, metavar="[TARGET|FILE|-]...")
@option(
    "--store", default="ftsec-results", show_default=True, metavar="DIR", help="Results; also an fsspec URL."
)
@option("--index", metavar="URL", help="Database of results.  [default: index.sqlite in the store]")
@option("--author", default="", metavar="ORG", help="Hub query: models of this organisation or person.")
@option(
    "--hub-filter", default="", type=comma_list, metavar="TAGS", help="Hub query: with these tags: peft,lora."
)
@option("--base-model", default="", metavar="REPO", help="Hub query: models that name this base.")
@option("--since", type=day, metavar="DATE", help="Hub query: models changed on or after this day.")
@option("--limit", type=click.IntRange(min=1), metavar="N", help="Hub query: at most so many, latest first.")
@option("--base", metavar="REF", help="Base of all models that the list gives none.  [default: as declared]")
@option("--no-base", is_flag=True, help="Compare with no base.")
@option(
    "--profile",
    type=click.Choice(["quick", "standard", "deep"]),
    default="standard",
    show_default=True,
    help="As for scan.",
)
@option("--select", type=comma_list, default="", metavar="IDS", help="Only these rules: FTA2,FTA401.")
@option("--ignore", type=comma_list, default="", metavar="IDS", help="Without these rules.")
@policy_options
@option(
    "--calibration",
    type=click.Path(path_type=Path, dir_okay=False),
    multiple=True,
    help="Calibration pack, or learned score (.onnx), in place of the shipped ones; repeatable.",
)
@option(
    "--executor",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="Processes of this machine, or the cluster at RAY_ADDRESS (extra: ray).",
)
@option("-j", "--jobs", type=click.IntRange(min=1), metavar="N", help="Workers.  [default: one per core]")
@option(
    "--connections",
    type=click.IntRange(min=1),
    default=8,
    show_default=True,
    metavar="N",
    help="Requests at once while planning; a scan makes one at a time.",
)
@option(
    "--patience",
    type=duration,
    default="6m",
    show_default=True,
    metavar="DURATION",
    help="Longest pause that the Hub may ask for when there are too many requests.",
)
@option("--shard", type=_shard, metavar="I/N", help="Only this part of the list, for arrays of machines.")
@option(
    "--max-time", type=duration, default="1h", show_default=True, metavar="DURATION", help="Per artifact."
)
@option("--max-memory", type=size, metavar="SIZE", help="Per worker: 4GB.")
@option(
    "--max-disk",
    type=size,
    metavar="SIZE",
    help="What the batch fetches from the Hub and keeps at a time, shared by its workers.",
)
@option("--no-retry", is_flag=True, help="Leave alone what failed in an earlier run.")
@option("--device", default="cpu", show_default=True, metavar="NAME", help="Where models are asked.")
@option("--seed", type=int, default=0, show_default=True, help="Of everything that is drawn at random.")
@option("--max-tokens", type=click.IntRange(min=1), metavar="N", help="Ask models at most so many tokens.")
@option("--offline", is_flag=True, help="Use only what is on this machine already.")
@option("--dry-run", is_flag=True, help="Show what would be scanned, then stop.")
@option("--events", type=click.Path(path_type=Path, dir_okay=False), help="Append events as JSON lines.")
@option(
    "-f",
    "--format",
    "outputs",
    type=_summary_format,
    multiple=True,
    metavar="FMT[=PATH]",
    help=f"Summary, repeatable: {', '.join(_SUMMARIES)}.",
)
@option("-q", "--quiet", is_flag=True, help="No progress and no table.")
@option("--no-progress", is_flag=True, help="No progress bars.")
def command(targets: tuple[str, ...], **options: Any) -> int:
    """Audit many models: resumable, isolated, one stored result each.

    What to scan is any number of references, of files that list them (.txt with one per line, .jsonl,
    .yaml), of - for standard input, or a query of the Hub. Every artifact is pinned to a commit or digest
    first and scanned once per content, base and set of questions: run the same command again after
    whatever ended it, and only what is missing is done. An artifact that crashes, hangs or exhausts memory
    costs itself alone; it is listed, and tried again by the next run. With a policy that has a triage, all
    are asked its first profile, and only those it names everything.

    \b
    Examples:
      ftsec-audit batch models.txt --store results/ -j 8
      ftsec-audit batch --author org --hub-filter peft --since 2026-01-01 --dry-run
      ftsec-audit batch models.jsonl --shard 3/16 --store s3://bucket/results
      ftsec-audit report --store results/ --verdict fail

    Exit codes: of all artifacts the most decisive counts: 1 failed · 2 without a report ·
    3 inconclusive, or interrupted · 0 all passed.
    """
    from ftsec_audit.cli.batch_run import conclude, dry_run, run

    os.environ["FTSEC_AUDIT_PATIENCE"] = str(options["patience"])  # workers inherit it
    with terminal.progress(quiet=options["quiet"], verbose=True, bars=not options["no_progress"]) as progress:
        if options["dry_run"]:
            return dry_run(targets, options, progress)
        summary = run(targets, options, progress)
    return conclude(summary, options)
