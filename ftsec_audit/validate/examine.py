"""Scanning a population: in parallel, resumable, one stored report per sample."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from ftsec_audit import api, atomic_file, stored_reports
from ftsec_audit.contracts import Progress
from ftsec_audit.errors import FtsecError
from ftsec_audit.measurement_cache import identity_of_code
from ftsec_audit.report import json as json_report
from ftsec_audit.types import Report
from ftsec_audit.validate.population import Located

_PACKAGE = Path(__file__).resolve().parents[1]
_CODE = (
    _PACKAGE, _PACKAGE / "weights", _PACKAGE / "formats", _PACKAGE / "calibration", _PACKAGE / "session",
    _PACKAGE.parent / "detectors",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Examined:
    """A sample and what a scan said of it, or why there was no scan."""

    sample: Located
    report: Report | None
    error: str = ""


def examine(
    samples: Sequence[Located],
    store: Path,
    *,
    profile: str = "standard",
    ignore: Sequence[str] = (),
    workers: int = 1,
    progress: Progress | None = None,
) -> list[Examined]:
    """A report for every sample, in order; what an earlier run stored is not scanned again.

    `ignore` leaves rules out by prefix. A stored report is named by the sample, its bytes, the profile, what
    is left out and the code that judges, so that a changed detector is measured anew. A scan that fails
    costs its own sample.
    """
    progress = progress or Progress()
    store.mkdir(parents=True, exist_ok=True)
    how = [profile, *ignore]
    paths = {sample.key: store / f"{sample.key}-{_fingerprint(sample, how)}.json" for sample in samples}
    missing = [sample for sample in samples if not paths[sample.key].exists()]
    progress.start("scanning", len(missing), "artifacts")
    errors: dict[str, str] = {}
    with _pool(workers) as pool:
        jobs = {
            pool.submit(_scan, str(s.folder), str(s.base), profile, tuple(ignore), paths[s.key]): s.key
            for s in missing
        }
        for job in as_completed(jobs):
            error = job.exception()
            if error is not None:
                errors[jobs[job]] = f"{type(error).__name__}: {error}"
                progress.note(f"{jobs[job]}: {errors[jobs[job]]}")
            progress.advance()
    return [
        Examined(sample=sample, report=_stored(paths[sample.key]), error=errors.get(sample.key, ""))
        for sample in samples
    ]


def _scan(target: str, base: str, profile: str, ignore: Sequence[str], path: Path) -> None:
    """One scan in a worker; the report is written whole or not at all."""
    report = api.scan(target, base=base, profile=profile, ignore=ignore, offline=True)
    atomic_file.write(path, json_report.render(report))


def _stored(path: Path) -> Report | None:
    try:
        return stored_reports.load(path)[0] if path.exists() else None
    except FtsecError:
        return None


def _fingerprint(sample: Located, how: Sequence[str]) -> str:
    content = [digest(sample), sample.base.name, *how, [identity_of_code(folder) for folder in _CODE]]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def digest(sample: Located) -> str:
    """Of every file of the sample, names included."""
    files = sorted(path for path in sample.folder.rglob("*") if path.is_file())
    contents = [
        (str(p.relative_to(sample.folder)), hashlib.sha256(p.read_bytes()).hexdigest()) for p in files
    ]
    return hashlib.sha256(json.dumps(contents).encode()).hexdigest()


def _pool(workers: int) -> ProcessPoolExecutor:
    """Fresh single-threaded processes: two spinning thread pools on two cores are slower than one."""
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(max_workers=max(1, workers), mp_context=context, initializer=_one_thread)


def _one_thread() -> None:
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):  # read when torch is first imported
        os.environ[name] = "1"
