"""From references to jobs, by metadata alone: pinned, each content once, in the order of their bases.

A job's key is the SHA-256 of what its result depends on: the artifact's content, the base's, and the
questions (`Questions.fingerprint`). Policies are not part of it: they judge a result again when it is read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from ftsec_audit.batch.job import Job
from ftsec_audit.contracts import Progress
from ftsec_audit.errors import FtsecError, UsageError
from ftsec_audit.models_list import Model
from ftsec_audit.scan_options import ScanOptions
from ftsec_audit.types import Profile
from ftsec_audit.version import VERSION

if TYPE_CHECKING:
    from ftsec_audit.artifact import Artifact
    from ftsec_audit.sources.connection import Connection
    from ftsec_audit.sources.identity import Glance

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, kw_only=True)
class Questions:
    """What every artifact of a batch is asked, and the base it is compared with unless it names its own."""

    profile: Profile = Profile.STANDARD
    select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    base: str | None = None
    no_base: bool = False
    calibration: tuple[Path, ...] = ()
    further: Mapping[str, Any] = field(default_factory=dict)
    """Other `ScanOptions` that change results: seed, languages, …"""

    def fingerprint(self) -> str:
        """Changes with the program, its detectors, their hyper-parameters and everything asked."""
        from ftsec_audit import api
        from ftsec_audit.calibration.bank import Calibration

        calibration = Calibration.load(self.calibration or None)
        content = [
            VERSION,
            self.profile,
            *api.fingerprint(self.select, self.ignore),
            calibration.id,
            calibration.learned.fingerprint if calibration.learned else "",
            self.no_base,
            sorted((name, _content(value)) for name, value in self.further.items()),
        ]
        return _sha256(content)

    def for_scan(self) -> ScanOptions:
        """As every artifact is asked; the base is each job's own."""
        return ScanOptions(
            profile=self.profile,
            select=self.select,
            ignore=self.ignore,
            no_base=self.no_base,
            **self.further,
        )


@dataclass(frozen=True, kw_only=True)
class Unresolved:
    """A reference that names nothing that can be had."""

    key: str
    reference: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class BatchPlan:
    """What a batch will do."""

    jobs: tuple[Job, ...]
    """Those with the same base together, large ones first among them."""
    unresolved: tuple[Unresolved, ...] = ()
    references: int = 0

    @property
    def duplicates(self) -> int:
        """References whose content another one has too."""
        return max(0, self.references - len(self.jobs) - len(self.unresolved))

    @property
    def bytes(self) -> int:
        """Of all artifacts. How much of it is read depends on the questions."""
        return sum(job.size for job in self.jobs)

    @property
    def bases(self) -> dict[str, int]:
        """Pinned base → its size in bytes."""
        return {job.base: job.base_size for job in self.jobs if job.base}


@dataclass(frozen=True, kw_only=True)
class _Found:
    """A reference that was resolved; small, as a batch holds one per artifact."""

    name: str
    pinned: str
    identity: str
    size: int
    base: str
    """To be resolved; empty for none."""
    declared: bool
    """Whether the artifact names that base, not the user."""
    answer: str


@dataclass(frozen=True, kw_only=True)
class _Base:
    pinned: str = ""
    identity: str = ""
    size: int = 0


def plan(
    models: Iterable[Model],
    questions: Questions,
    *,
    offline: bool = False,
    threads: int = 8,
    progress: Progress | None = None,
) -> BatchPlan:
    """The jobs of a batch. Raises UsageError for questions that make no sense, and nothing per artifact."""
    progress = progress or Progress()
    asked = tuple(dict.fromkeys(models))
    fingerprint = questions.fingerprint()
    access = _Access(offline)
    progress.start("plan", len(asked), "artifacts")
    with ThreadPoolExecutor(threads) as pool:
        outcomes = list(
            _mapped(pool, lambda model: _artifact(model, questions, access), asked, progress.advance)
        )
        found = [outcome for outcome in outcomes if isinstance(outcome, _Found)]
        names = sorted({one.base for one in found if one.base})
        bases = dict(zip(names, pool.map(lambda name: _base(name, access), names), strict=True))
    unresolved = tuple(
        Unresolved(
            key=_sha256(["unresolved", model.model, fingerprint]), reference=model.model, reason=str(error)
        )
        for model, error in zip(asked, outcomes, strict=True)
        if isinstance(error, FtsecError)
    )
    jobs = _merged(_job(one, bases.get(one.base, _Base()), fingerprint) for one in found)
    ordered = tuple(sorted(jobs, key=lambda job: (job.base, -job.size, job.key)))
    return BatchPlan(jobs=ordered, unresolved=unresolved, references=len(asked))


def _mapped(
    pool: ThreadPoolExecutor, function: Callable[[T], R], items: Iterable[T], tell: Callable[[int], None]
) -> Iterator[R]:
    for result in pool.map(function, items):
        tell(1)
        yield result


@dataclass(frozen=True)
class _Access:
    """How artifacts are looked up, all of them over the same connection."""

    offline: bool

    @cached_property
    def connection(self) -> Connection:
        """Raises SourceError."""
        from ftsec_audit.sources.connection import Connection

        return Connection.from_environment(offline=self.offline)

    def glance(self, reference: str) -> Glance:
        """Raises SourceError."""
        from ftsec_audit.sources.identity import glance

        return glance(reference, offline=self.offline, connect=lambda: self.connection)

    def resolve(self, reference: str) -> Artifact:
        """Raises SourceError."""
        from ftsec_audit.sources import resolve

        return resolve(reference, offline=self.offline)


def _artifact(model: Model, questions: Questions, access: _Access) -> _Found | FtsecError:
    from ftsec_audit.sources.identity import at_length

    explicit = "" if questions.no_base else model.base or questions.base or ""
    try:
        if explicit or questions.no_base or questions.profile is Profile.QUICK:
            known, base = access.glance(model.model), explicit
        else:
            artifact = access.resolve(model.model)
            known, base = at_length(artifact), _declared(artifact)
    except FtsecError as error:
        return error
    return _Found(
        name=model.model,
        pinned=known.pinned,
        identity=known.identity,
        size=known.size,
        base=base,
        declared=not explicit,
        answer=known.answer,
    )


def _declared(artifact: Artifact) -> str:
    """The base that the artifact names, on the Hub or of the reference lab; empty where that is none.

    A stack has that of its first adapter. Raises FormatError for a description of a stack that is none.
    """
    from ftsec_audit import stacks
    from ftsec_audit.sources.base import declared_base
    from ftsec_audit.sources.references import LocalReference

    parts = stacks.described(artifact)
    declared = declared_base(parts[0].artifact if parts else artifact)
    if isinstance(declared, str):
        return ""
    if isinstance(declared, LocalReference):
        return str(declared.path)
    revision = f"@{quote(declared.revision, safe='')}" if declared.revision else ""
    return f"hf://{declared.repository}{revision}"


def _base(name: str, access: _Access) -> _Base:
    """A base pinned; or empty when it cannot be had, which each scan then explains."""
    from ftsec_audit.measurement_cache import identity_of_base
    from ftsec_audit.sources.identity import pinned

    try:
        base = access.resolve(name)
        size = sum(file.size for file in base.files)
        return _Base(pinned=pinned(base), identity=identity_of_base(base), size=size)
    except FtsecError:
        return _Base(identity=f"unresolved {name}")


def _job(found: _Found, base: _Base, fingerprint: str) -> Job:
    """A base that the user named and that cannot be had stays in place: the scan shall fail on it."""
    return Job(
        key=_sha256([found.identity, base.identity, fingerprint]),
        reference=found.pinned,
        base=base.pinned or ("" if found.declared else found.base),
        base_size=base.size,
        size=found.size,
        names=(found.name,),
        answers=(found.answer,) if found.answer else (),
    )


def _merged(jobs: Iterable[Job]) -> Iterable[Job]:
    """One job for each key, with all its names."""
    by_key: dict[str, Job] = {}
    for job in jobs:
        first = by_key.setdefault(job.key, job)
        if first is not job:
            names, answers = (*first.names, *job.names), (*first.answers, *job.answers)
            by_key[job.key] = replace(first, names=names, answers=answers)
    return by_key.values()


def _content(value: object) -> str:
    """Of a file of the user's, what it holds; of anything else, what it is."""
    try:
        return hashlib.sha256(value.read_bytes()).hexdigest() if isinstance(value, Path) else str(value)
    except OSError as error:
        raise UsageError(error.strerror or "cannot be read", where=str(value)) from error


def _sha256(content: object) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
