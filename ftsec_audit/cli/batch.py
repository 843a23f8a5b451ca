"""`ftsec-audit batch`: many artifacts, resumable."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from ftsec_audit.cli import exit_codes, terminal
from ftsec_audit.cli.options import Output, comma_list, day, duration, option, policy_options, size
from ftsec_audit.errors import UsageError

if TYPE_CHECKING:
    from ftsec_audit.batch.executor import Executor
    from ftsec_audit.batch.index import Index
    from ftsec_audit.batch.plan import BatchPlan, Questions
    from ftsec_audit.batch.summary import Summary
    from ftsec_audit.batch.work import ScanWork
    from ftsec_audit.contracts import Progress
    from ftsec_audit.models_list import Model

_SUMMARIES = ("table", "json", "markdown")
_JUDGING = ("policy", "fail_on", "strict", "ignorefile", "baseline")


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
    help="Calibration pack in place of the shipped ones, repeatable.",
)
@option(
    "--executor",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="Processes of this machine, or the cluster at RAY_ADDRESS (extra: ray).",
)
@option("-j", "--jobs", type=click.IntRange(min=1), metavar="N", help="Workers.  [default: one per core]")
@option("--shard", type=_shard, metavar="I/N", help="Only this part of the list, for arrays of machines.")
@option(
    "--max-time", type=duration, default="1h", show_default=True, metavar="DURATION", help="Per artifact."
)
@option("--max-memory", type=size, metavar="SIZE", help="Per worker: 4GB.")
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
    costs itself alone; it is listed, and tried again by the next run.

    \b
    Examples:
      ftsec-audit batch models.txt --store results/ -j 8
      ftsec-audit batch --author org --hub-filter peft --since 2026-01-01 --dry-run
      ftsec-audit batch models.jsonl --shard 3/16 --store s3://bucket/results
      ftsec-audit report --store results/ --verdict fail

    Exit codes: of all artifacts the most decisive counts: 1 failed · 2 without a report ·
    3 inconclusive, or interrupted · 0 all passed.
    """
    with terminal.progress(quiet=options["quiet"], verbose=True, bars=not options["no_progress"]) as progress:
        questions = _questions(options)
        from ftsec_audit.batch.plan import plan

        planned = plan(
            _models(targets, options, progress), questions, offline=options["offline"], progress=progress
        )
        if options["dry_run"]:
            return _dry_run(planned, options)
        with _events(options["events"]) as events:
            summary = _run(planned, questions, options, progress, events)
    return _conclude(summary, options)


def _models(targets: Iterable[str], options: dict[str, Any], progress: Progress) -> Iterator[Model]:
    """Everything asked for, of this shard; raises UsageError when nothing was asked for."""
    from ftsec_audit.batch.inputs import from_arguments
    from ftsec_audit.models_list import Model
    from ftsec_audit.sources.connection import Connection
    from ftsec_audit.sources.search import HubQuery, search

    query = HubQuery(
        author=options["author"],
        filters=options["hub_filter"],
        base_model=options["base_model"],
        since=options["since"],
        limit=options["limit"],
    )
    if not targets and query.is_empty:
        raise UsageError("nothing to scan", hint="name models, a list, or a query such as --author")
    models = list(from_arguments(targets, sys.stdin))
    if not query.is_empty:
        connection = Connection.from_environment(offline=options["offline"], progress=progress)
        models += [Model(model=reference) for reference in search(connection, query)]
    number, of = options["shard"] or (1, 1)
    return (model for model in models if _bucket(model.model, of) == number - 1)


def _bucket(reference: str, of: int) -> int:
    """The same on every machine, whatever else is listed."""
    return int.from_bytes(hashlib.sha256(reference.encode("utf-8", "surrogateescape")).digest()[:8]) % of


def _questions(options: dict[str, Any]) -> Questions:
    from ftsec_audit.batch.plan import Questions
    from ftsec_audit.types import Profile

    if options["base"] and options["no_base"]:
        raise UsageError("a base and no base are asked for at once", hint="keep one of --base, --no-base")
    return Questions(
        profile=Profile(options["profile"]),
        select=options["select"],
        ignore=options["ignore"],
        base=options["base"],
        no_base=options["no_base"],
        calibration=options["calibration"],
        further={"seed": options["seed"], "max_tokens": options["max_tokens"]},
    )


def _dry_run(planned: BatchPlan, options: dict[str, Any]) -> int:
    from ftsec_audit.batch.store import Store
    from ftsec_audit.batch.summaries import describe

    exists = "://" in options["store"] or Path(options["store"]).exists()
    store = Store(options["store"]) if exists else None
    finished = sum(store.has(job.key) for job in planned.jobs) if store else 0
    terminal.show(describe(planned, finished=finished))
    return exit_codes.COULD_NOT_RUN if planned.unresolved else exit_codes.OK


def _run(
    planned: BatchPlan,
    questions: Questions,
    options: dict[str, Any],
    progress: Progress,
    events: TextIO | None,
) -> Summary:
    from ftsec_audit.batch.drive import Batch
    from ftsec_audit.batch.events import Observer
    from ftsec_audit.batch.store import Store

    store = Store(options["store"])
    return Batch(
        plan=planned,
        store=store,
        work=_work(questions, options),
        executor=_executor(options),
        retry=not options["no_retry"],
        index=_index(options),
        observer=Observer(progress, events),
    ).run()


def _work(questions: Questions, options: dict[str, Any]) -> ScanWork:
    from ftsec_audit.batch.work import ScanWork
    from ftsec_audit.cli.verdicts import Judge

    chosen = {name: options[name] for name in _JUDGING}
    scan = questions.for_scan()
    words = [word for name in ("profile", "seed") for word in (f"--{name}", str(scan[name]))]
    for name in ("select", "ignore"):
        words += [f"--{name}", ",".join(scan[name])] if scan[name] else []
    words += ["--max-tokens", str(options["max_tokens"])] if options["max_tokens"] else []
    words += ["--no-base"] if options["no_base"] else []
    return ScanWork(
        store=options["store"],
        scan={**scan, "offline": options["offline"], "device": options["device"]},
        judging=Judge.of(**chosen).options() if any(chosen.values()) else {},
        calibration=options["calibration"],
        words=tuple(words),
    )


def _executor(options: dict[str, Any]) -> Executor:
    from ftsec_audit.batch import memory
    from ftsec_audit.batch.pool import LocalPool
    from ftsec_audit.batch.ray import RayExecutor

    if options["max_memory"] and not memory.is_known():
        raise UsageError("--max-memory needs a system with /proc")
    limits = {"max_seconds": options["max_time"], "max_memory": options["max_memory"]}
    if options["executor"] == "ray":
        gpus = 1.0 if options["device"].startswith("cuda") else 0.0
        return RayExecutor(options["jobs"], gpus=gpus, **limits)
    return LocalPool(options["jobs"], **limits)


def _index(options: dict[str, Any]) -> Index | None:
    """None, with a remark, where there can be none: results are stored all the same."""
    from ftsec_audit.cli.stored import open_index

    try:
        return open_index(options["store"], options["index"])
    except UsageError as error:
        terminal.remark(f"no index: {error}")
        return None


@contextmanager
def _events(path: Path | None) -> Iterator[TextIO | None]:
    if path is None:
        yield None
        return
    with path.open("a", encoding="utf-8") as file:
        yield file


def _conclude(summary: Summary, options: dict[str, Any]) -> int:
    """Show the summary; the exit code."""
    from ftsec_audit import atomic_file
    from ftsec_audit.batch.summaries import render

    outputs = options["outputs"] or (() if options["quiet"] else (Output("table"),))
    codes = [exit_codes.of_verdict(v, exit_zero=options["exit_zero"]) for v in summary.verdicts]
    for output in outputs:
        text = render(summary, output.format)
        if output.path is None:
            terminal.show(text)
            continue
        try:
            atomic_file.write(output.path, text)
        except OSError as error:
            terminal.complain(f"{output.path}: the summary could not be written: {error.strerror}")
            codes.append(exit_codes.COULD_NOT_RUN)
    if summary.failures:
        codes.append(exit_codes.COULD_NOT_RUN)
    if summary.interrupted or summary.remaining:
        codes.append(exit_codes.INCONCLUSIVE)
    return exit_codes.worst(codes)
