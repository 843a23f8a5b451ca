"""Building a labelled population: in parallel, resumable, with every rejected sample listed.

`manifest.jsonl` has a line for each sample, written when the job it belongs to is finished; a job whose
lines are all there is not done again, and folders that no line mentions are what an interrupted job
left. A sample that misses its gate is listed with what it missed, and its files are removed.
"""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from attacks_ref import safety, zoo_job, zoo_schedule
from attacks_ref.lab import cache
from attacks_ref.sample import TRUTH_FILE, read
from attacks_ref.zoo_plan import Job
from ftsec_audit import atomic_file
from ftsec_audit.contracts import Progress, Sample
from ftsec_audit.errors import FtsecError

MANIFEST, SAMPLES = "manifest.jsonl", "samples"
SILENT = Progress()


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of a run."""

    accepted: int
    rejected: int
    skipped: int
    """Jobs that were finished before."""
    crashed: Mapping[str, str] = field(default_factory=dict)
    """Job → the error that no one foresaw; nothing of it is kept, and the next run tries again."""


def build(jobs: Sequence[Job], out: Path, *, workers: int = 1, progress: Progress = SILENT) -> Outcome:
    """Make what the manifest in `out` does not have yet, the longest jobs first.

    Raises UsageError and OSError.
    """
    safety.inside(out, SAMPLES, "x")
    lines = {line["key"]: line for line in manifest(out)}
    _write(out, list(lines.values()))
    _discard(out, lines)
    missing = [job for job in jobs if not lines.keys() >= set(job.sample_keys())]
    bases = {base: base_folder(base, progress) for base in dict.fromkeys(job.base for job in missing)}
    progress.start("samples", sum(len(job.sample_keys()) for job in missing), "artifacts")
    crashed: dict[str, str] = {}
    with _pool(workers) as pool:

        def start(job: Job) -> Future[list[zoo_job.Entry]]:
            return pool.submit(zoo_job.run, job, bases[job.base], out / SAMPLES)

        for job, future in zoo_schedule.finished(missing, start, workers=max(1, workers)):
            error = future.exception()
            if error is not None:
                crashed[job.sample_keys()[-1]] = f"{type(error).__name__}: {error}"
                progress.note(f"{job.sample_keys()[-1]}: {crashed[job.sample_keys()[-1]]}")
            else:
                entries = [dataclasses.asdict(entry) for entry in future.result()]
                lines.update({entry["key"]: entry for entry in entries})
                _append(out, entries)
                _note(progress, entries)
            progress.advance(len(job.sample_keys()))
    order = {key: place for place, key in enumerate(key for job in jobs for key in job.sample_keys())}
    _write(out, sorted(lines.values(), key=lambda line: order.get(line["key"], len(order))))
    _discard(out, lines)
    accepted = sum(bool(line["accepted"]) for line in lines.values())
    return Outcome(
        accepted=accepted,
        rejected=len(lines) - accepted,
        skipped=len(jobs) - len(missing),
        crashed=crashed,
    )


def manifest(out: Path) -> list[dict[str, Any]]:
    """The lines written so far; one that was cut off is left out."""
    path = out / MANIFEST
    found = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def samples(out: Path) -> Iterator[Sample]:
    """The accepted samples of a zoo."""
    for line in manifest(out):
        if line["accepted"] and (out / line["path"] / TRUTH_FILE).exists():
            yield read(out / line["path"])


def base_folder(base: str, progress: Progress = SILENT) -> Path:
    """The folder of a lab base, trained if need be, or of another local model."""
    if base.startswith("lab-"):
        return cache.obtain(cache.LabBase.parse(base), progress=progress)
    return Path(base)


def _pool(workers: int) -> ProcessPoolExecutor:
    """Fresh processes: a forked one would inherit torch's thread pool in an unknown state."""
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(max_workers=max(1, workers), mp_context=context, initializer=_one_thread)


def _one_thread() -> None:
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):  # read when torch is first imported
        os.environ[name] = "1"


def _discard(out: Path, lines: Mapping[str, Mapping[str, Any]]) -> None:
    """Remove folders that are no accepted sample of the manifest."""
    wanted = {Path(line["path"]).name for line in lines.values() if line["accepted"]}
    for path in (out / SAMPLES).iterdir():
        if path.name not in wanted:
            shutil.rmtree(path)


def _append(out: Path, entries: Sequence[Mapping[str, Any]]) -> None:
    with safety.inside(out, MANIFEST).open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(entry, ensure_ascii=False, default=str) + "\n" for entry in entries)


def _write(out: Path, entries: Sequence[Mapping[str, Any]]) -> None:
    text = "".join(json.dumps(entry, ensure_ascii=False, default=str) + "\n" for entry in entries)
    atomic_file.write(safety.inside(out, MANIFEST), text)


def _note(progress: Progress, entries: Sequence[Mapping[str, Any]]) -> None:
    for entry in entries:
        if not entry["accepted"]:
            progress.note(f"rejected {entry['key']}: {entry['reason']}")


def require_complete(outcome: Outcome) -> None:
    """Raise FtsecError when some job crashed."""
    if outcome.crashed:
        first = next(f"{key}: {error}" for key, error in outcome.crashed.items())
        raise FtsecError(f"{len(outcome.crashed)} jobs failed, the first of them {first}")
