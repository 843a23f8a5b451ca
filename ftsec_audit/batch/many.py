"""`scan_many`: a batch from Python, one report after the other as they are done."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftsec_audit.batch.folders import anywhere
from ftsec_audit.errors import FtsecError
from ftsec_audit.types import Profile, Report

if TYPE_CHECKING:
    from ftsec_audit.batch.executor import Executor
    from ftsec_audit.contracts import Progress


def scan_many(
    references: Iterable[str],
    *,
    executor: Executor | None = None,
    store: str | Path | None = None,
    **options: Any,
) -> Iterator[Report]:
    """Reports of many artifacts, with the same options for all.

    With neither `executor` nor `store`, `scan` of each reference in turn, in this process. With either, a
    batch: planned, each content once, in workers that may be lost, in the order in which they finish.
    A script calls it below `if __name__ == "__main__":`, for workers of this machine import the script too.
    A `store` (folder or fsspec URL) keeps the results: what is finished there is read, not scanned again.
    Artifacts without a report are an FtsecError once everything else is done.
    """
    if executor is None and store is None:
        from ftsec_audit import api

        yield from api.scan_many(references, **options)
        return
    kept = nullcontext(anywhere(str(store))) if store else tempfile.TemporaryDirectory(prefix="ftsec-audit-")
    with kept as url:
        yield from _batch(references, executor, url, **options)


def _batch(
    references: Iterable[str],
    executor: Executor | None,
    url: str,
    *,
    base: str | None = None,
    no_base: bool = False,
    profile: str | Profile = Profile.STANDARD,
    select: Sequence[str] = (),
    ignore: Sequence[str] = (),
    offline: bool = False,
    device: str = "cpu",
    seed: int = 0,
    max_tokens: int | None = None,
    retry: bool = True,
    progress: Progress | None = None,
    **judging: Any,
) -> Iterator[Report]:
    from ftsec_audit.batch.drive import Batch
    from ftsec_audit.batch.events import Observer
    from ftsec_audit.batch.plan import Questions, plan
    from ftsec_audit.batch.pool import LocalPool
    from ftsec_audit.batch.store import Store
    from ftsec_audit.batch.work import ScanWork
    from ftsec_audit.models_list import Model

    questions = Questions(
        profile=Profile(profile),
        select=tuple(select),
        ignore=tuple(ignore),
        base=base,
        no_base=no_base,
        further={"seed": seed, "max_tokens": max_tokens},
    )
    scan = replace(questions.for_scan(), offline=offline, device=device)
    documents = Store(url)
    work = ScanWork(store=url, scan=scan, judging=_judging(**judging))
    batch = Batch(
        plan=plan([Model(model=each) for each in references], questions, offline=offline, progress=progress),
        store=documents,
        work=work,
        executor=executor or LocalPool(),
        retry=retry,
    )
    missing = []
    for done in batch.outcomes(Observer(progress)):
        assert done.row is not None
        record = documents.get(done.row.name)
        if record is None or record.report is None:
            missing.append(done.row)
        else:
            yield work.judged(record.report)
    if missing:
        raise FtsecError(
            f"{len(missing):,} artifacts have no report, the first because: {missing[0].reason}",
            where=missing[0].reference,
        )


def _judging(**options: Any) -> dict[str, Any]:
    """As for `api.judged`; raises TypeError for what `scan` does not know either."""
    from ftsec_audit.policy import Policy

    if unknown := sorted(set(options) - {"policy", "ignore_file", "baseline"}):
        raise TypeError(f"scan_many() got an unexpected keyword argument {unknown[0]!r}")
    policy = options.pop("policy", "default")
    if policy == "default" and not options:
        return {}
    return {**options, "policy": policy if isinstance(policy, Policy) else Policy.load(policy)}
