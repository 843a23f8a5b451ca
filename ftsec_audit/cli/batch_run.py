"""What `ftsec-audit batch` does with its options: plan, scan, triage, conclude."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from ftsec_audit.batch.plan import BatchPlan
from ftsec_audit.batch.summary import Summary
from ftsec_audit.cli import exit_codes, terminal
from ftsec_audit.cli.options import Output
from ftsec_audit.cli.verdicts import Judge
from ftsec_audit.errors import UsageError
from ftsec_audit.types import Profile

if TYPE_CHECKING:
    from ftsec_audit.batch.costs import Costs
    from ftsec_audit.batch.drive import Batch
    from ftsec_audit.batch.executor import Executor
    from ftsec_audit.batch.index import Index
    from ftsec_audit.batch.plan import Questions
    from ftsec_audit.batch.store import Store
    from ftsec_audit.batch.work import ScanWork
    from ftsec_audit.contracts import Progress
    from ftsec_audit.models_list import Model
    from ftsec_audit.policy import Triage

_SAMPLED = 300
_JUDGING = ("policy", "fail_on", "strict", "ignorefile", "baseline")


def _models(targets: Iterable[str], options: dict[str, Any], progress: Progress) -> list[Model]:
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
    return [model for model in models if _bucket(model.model, of) == number - 1]


def _bucket(reference: str, of: int) -> int:
    """The same on every machine, whatever else is listed."""
    return int.from_bytes(hashlib.sha256(reference.encode("utf-8", "surrogateescape")).digest()[:8]) % of


def _questions(options: dict[str, Any]) -> Questions:
    from ftsec_audit.batch.plan import Questions

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


def dry_run(targets: Iterable[str], options: dict[str, Any], progress: Progress) -> int:
    """Show what would be scanned; the exit code."""
    from ftsec_audit.batch.pool import cores
    from ftsec_audit.batch.store import Store
    from ftsec_audit.batch.summaries import describe

    questions, triage = _stages(options)
    planned = _plan(_models(targets, options, progress), questions, options, progress)
    for job in planned.jobs:
        job.keep_answers()
    exists = "://" in options["store"] or Path(options["store"]).exists()
    store = Store(options["store"]) if exists else None
    finished = frozenset(job.key for job in planned.jobs if store and store.has(job.key))
    workers = options["jobs"] or (cores() if options["executor"] == "local" else None)
    costs = _costs(questions.profile, store)
    terminal.show(describe(planned, finished=finished, costs=costs, workers=workers))
    if triage:
        terminal.show(
            f"profile {questions.profile} first; {options['profile']} for what its triage asks more of"
        )
    return exit_codes.COULD_NOT_RUN if planned.unresolved else exit_codes.OK


def run(targets: Iterable[str], options: dict[str, Any], progress: Progress) -> Summary:
    """Plan and scan; with a triage, everything a first time and some of it a second."""
    models = _models(targets, options, progress)
    questions, triage = _stages(options)
    with _events(options["events"]) as events:
        planned = _plan(models, questions, options, progress)
        first = _batch(planned, questions, options, progress, events, triage).run()
        if triage is None:
            return first
        if first.interrupted:
            return first.followed_by(Summary(plan=BatchPlan(jobs=tuple(first.passed_on))))
        names = {name for job in first.passed_on for name in job.names}
        chosen = [model for model in models if model.model in names]
        everything = _questions(options)
        planned = _plan(chosen, everything, options, progress)
        return first.followed_by(_batch(planned, everything, options, progress, events, None).run())


def _stages(options: dict[str, Any]) -> tuple[Questions, Triage | None]:
    """What every artifact is asked first, and the triage after it, if there is one."""
    questions, triage = _questions(options), _judge(options).policy.triage
    if triage is None or triage.first >= questions.profile:
        return questions, None
    return replace(questions, profile=triage.first), triage


def _plan(
    models: Iterable[Model], questions: Questions, options: dict[str, Any], progress: Progress
) -> BatchPlan:
    from ftsec_audit.batch.plan import plan

    return plan(
        models, questions, offline=options["offline"], threads=options["connections"], progress=progress
    )


def _costs(profile: Profile, store: Store | None) -> Costs:
    """By what scans took that this store has recorded; keys are digests, so any few are a fair sample."""
    from ftsec_audit.batch.costs import Costs

    records = store.sample(_SAMPLED) if store and "://" not in store.url else ()  # listing those is slow
    scans = [(r.size, r.seconds) for r in records if r.report and r.report.profile is profile]
    return Costs.of(profile).fitted(scans)


def _batch(
    planned: BatchPlan,
    questions: Questions,
    options: dict[str, Any],
    progress: Progress,
    events: TextIO | None,
    triage: Triage | None,
) -> Batch:
    from ftsec_audit.batch.drive import Batch
    from ftsec_audit.batch.events import Observer
    from ftsec_audit.batch.store import Store

    store = Store(options["store"])
    return Batch(
        plan=planned,
        store=store,
        work=_work(questions, options),
        executor=_executor(options, questions.profile),
        costs=_costs(questions.profile, store),
        retry=not options["no_retry"],
        index=_index(options),
        observer=Observer(progress, events),
        triage=triage,
    )


def _work(questions: Questions, options: dict[str, Any]) -> ScanWork:
    from ftsec_audit.batch.folders import anywhere
    from ftsec_audit.batch.pool import cores
    from ftsec_audit.batch.work import ScanWork

    scan = questions.for_scan()
    words = ["--profile", str(scan.profile), "--seed", str(scan.seed)]
    words += ["--select", ",".join(scan.select)] if scan.select else []
    words += ["--ignore", ",".join(scan.ignore)] if scan.ignore else []
    words += ["--max-tokens", str(options["max_tokens"])] if options["max_tokens"] else []
    words += ["--no-base"] if options["no_base"] else []
    return ScanWork(
        store=anywhere(options["store"]),
        scan=replace(scan, offline=options["offline"], device=options["device"]),
        judging=_judge(options).options() if any(options[name] for name in _JUDGING) else {},
        calibration=tuple(path.absolute() for path in options["calibration"]),
        max_disk=None if options["max_disk"] is None else options["max_disk"] // (options["jobs"] or cores()),
        words=tuple(words),
    )


def _judge(options: dict[str, Any]) -> Judge:
    return Judge.of(**{name: options[name] for name in _JUDGING})


def _executor(options: dict[str, Any], profile: Profile) -> Executor:
    from ftsec_audit.batch import memory
    from ftsec_audit.batch.pool import LocalPool
    from ftsec_audit.batch.ray import RayExecutor

    if options["max_memory"] and not memory.is_known():
        raise UsageError("--max-memory needs a system with /proc")
    limits = {"max_seconds": options["max_time"], "max_memory": options["max_memory"]}
    if options["executor"] == "ray":
        probed = profile is not Profile.QUICK
        gpus = 1.0 if probed and options["device"].startswith("cuda") else 0.0
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


def conclude(summary: Summary, options: dict[str, Any]) -> int:
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
