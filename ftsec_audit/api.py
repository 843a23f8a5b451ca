"""The wiring, and the public face: sources, detectors, calibration, runner and policy put together.

The only file that names the registry of detectors. Nothing here prints, exits or keeps state.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftsec_audit.contracts import Detector, Progress, Subject
from ftsec_audit.errors import FtsecError, UsageError
from ftsec_audit.taxonomy import Reference, references
from ftsec_audit.types import Profile, Report, Rule

if TYPE_CHECKING:
    from detectors.registry import Entry
    from ftsec_audit.calibration.bank import Calibration
    from ftsec_audit.calibration.build import Built
    from ftsec_audit.calibration.pack import Provenance
    from ftsec_audit.formats.dialogues import Dialogues
    from ftsec_audit.policy import Policy
    from ftsec_audit.runner import OpenSessions
    from ftsec_audit.session import KeptBase, Sessions
    from ftsec_audit.signing import RequiredSignature
    from ftsec_audit.sources.transfer import Transfer
    from ftsec_audit.stacks import Further
    from ftsec_audit.suppress import Baseline, IgnoreFile
    from ftsec_audit.weights.delta import Delta


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which rules are asked, by prefix: everything, or only `select`, without `ignore`."""

    select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()

    def deselected(self, ids: Sequence[str]) -> frozenset[str]:
        """The rules of `ids` that are left out; raises UsageError for a prefix that names no rule."""
        for prefix in (*self.select, *self.ignore):
            if not prefix or not any(id.startswith(prefix) for id in ids):
                raise UsageError(f"{prefix!r} names no rule", hint="ftsec-audit rules lists them")
        return frozenset(
            id
            for id in ids
            if (self.select and not id.startswith(self.select))
            or (self.ignore and id.startswith(self.ignore))
        )


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a scan would do; made from metadata alone."""

    subject: Subject
    detectors: tuple[Detector, ...]
    deselected: frozenset[str]
    profile: Profile
    beyond: Mapping[str, Profile]
    """Rules whose detectors were not even imported: the smallest profile in which each is asked."""

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The rules that will be asked."""
        run = (detector for detector in self.detectors if type(detector).profile <= self.profile)
        asked = (rule for detector in run for rule in detector.rules)
        return tuple(rule for rule in asked if rule.id not in self.deselected)


def plan(
    reference: str,
    *,
    base: str | None = None,
    no_base: bool = False,
    parent: str | None = None,
    stack: Sequence[Further] = (),
    profile: str | Profile = Profile.STANDARD,
    select: Sequence[str] = (),
    ignore: Sequence[str] = (),
    offline: bool = False,
    token: str | None = None,
    progress: Progress | None = None,
    _transfer: Any = None,
) -> Plan:
    """Resolve the artifact and its base, and choose detectors; reads configurations only.

    `parent` is the model that the base was aligned from. With a `stack`, or of a folder that describes one,
    the weights of its adapters are read and put together.
    Raises SourceError when the artifact, or a base given by name, cannot be had.
    """
    from ftsec_audit import stacks
    from ftsec_audit.sources import resolve

    if base and no_base:
        raise UsageError("a base and no base are asked for at once", hint="keep one of --base, --no-base")
    profile = Profile(profile)
    entries = _known_detectors()
    every_rule = [rule for entry in entries for rule in entry.rules]
    deselected = Selection(select=tuple(select), ignore=tuple(ignore)).deselected(every_rule)
    # What is left out of a rule that was deselected is a finding, which takes the rule's own words.
    wanted = [one for one in entries if one.profile <= profile or not deselected.isdisjoint(one.rules)]
    beyond = {rule: one.profile for one in entries if one not in wanted for rule in one.rules}
    access: dict[str, Any] = {
        "token": token,
        "offline": offline,
        "progress": progress,
        "transfer": _transfer,
    }
    artifact = resolve(reference, **access)
    if not artifact.files:
        raise UsageError("holds no files", where=reference)
    parts = stacks.described(artifact) or (stacks.Part(artifact),)
    further = [stacks.Part(resolve(one.reference, **access), one.scale) for one in stack]
    if further or parts[0].artifact is not artifact:
        artifact = stacks.composed([*parts, *further])
    if profile is Profile.QUICK and not base:
        subject = Subject(
            artifact=artifact, base=None, base_reason="the quick profile does not fetch the base"
        )
    else:
        from ftsec_audit.sources.base import resolve_base

        found, reason = resolve_base(artifact, base, no_base, **access)
        subject = Subject(artifact=artifact, base=found, base_reason=reason)
    if parent:
        subject = replace(subject, parent=resolve(parent, **access))
    return Plan(
        subject=subject,
        detectors=tuple(entry.load()() for entry in wanted),
        deselected=deselected,
        profile=profile,
        beyond=beyond,
    )


def scan(
    reference: str,
    *,
    base: str | None = None,
    no_base: bool = False,
    parent: str | None = None,
    stack: Sequence[Further] = (),
    profile: str | Profile = Profile.STANDARD,
    select: Sequence[str] = (),
    ignore: Sequence[str] = (),
    policy: Policy | str | Path = "default",
    ignore_file: IgnoreFile | None = None,
    baseline: Baseline | None = None,
    calibration: Calibration | None = None,
    max_bytes: int | None = None,
    max_seconds: float | None = None,
    offline: bool = False,
    token: str | None = None,
    cache: bool = True,
    progress: Progress | None = None,
    command: str = "",
    device: str = "auto",
    seed: int = 0,
    max_tokens: int | None = None,
    probes: Path | None = None,
    languages: Sequence[str] = (),
    dataset: Path | None = None,
    hash_everything: bool = False,
    required_signature: RequiredSignature | None = None,
    _transfer: Transfer | None = None,
    _kept: KeptBase | None = None,
) -> Report:
    """Audit one artifact: a directory, a file, `org/model`, `org/model@rev`, `hf://…`.

    `stack` are further adapters that are loaded with it: audited is what they are together. `dataset` holds
    the rows it was tuned on, if these are to be audited too. Raises UsageError for bad
    arguments and SourceError when there is nothing to audit; everything that goes wrong later is part of
    the report. With `max_bytes` nothing is hashed: the report has no digest.
    """
    from ftsec_audit import runner
    from ftsec_audit.assembly import assemble
    from ftsec_audit.calibration.bank import Calibration
    from ftsec_audit.measurement_cache import MeasurementCache, default_root
    from ftsec_audit.metering import metered
    from ftsec_audit.policy import Policy
    from ftsec_audit.sources.transfer import Transfer

    judge = policy if isinstance(policy, Policy) else Policy.load(policy)
    calibration = calibration or Calibration.load()
    progress = progress or Progress()
    transfer = _transfer or Transfer()
    planned = plan(
        reference,
        base=base,
        no_base=no_base,
        parent=parent,
        stack=stack,
        profile=profile,
        select=select,
        ignore=ignore,
        offline=offline,
        token=token,
        progress=progress,
        _transfer=transfer,
    )
    if required_signature is not None:
        required_signature.check(planned.subject.artifact)
    subject = metered(planned.subject, max_bytes) if max_bytes is not None else planned.subject
    if dataset is not None:
        subject = replace(subject, dataset=_rows(dataset))
    audit = runner.run(
        subject,
        planned.detectors,
        calibration,
        profile=planned.profile,
        stream=_deltas,
        deselected=planned.deselected,
        beyond=planned.beyond,
        progress=progress,
        max_seconds=max_seconds,
        # To know whether bytes were measured before, all of them would have to be read.
        cache=MeasurementCache(default_root()) if cache and max_bytes is None else None,
        sessions=_opener(
            subject,
            device=device,
            seed=seed,
            max_tokens=max_tokens,
            probes=probes,
            languages=languages,
            profile=planned.profile,
            kept=_kept,
        ),
    )
    report = assemble(
        planned.subject,
        audit,
        profile=planned.profile,
        rules=planned.rules,
        calibration=calibration,
        command=command,
        with_digest=max_bytes is None,
        exact=hash_everything,
    )
    if transfer.requests:
        progress.note(f"transferred {transfer.bytes:,} bytes in {transfer.requests} requests")
    report = replace(report, seed=seed)
    return judged(report, judge, ignore_file=ignore_file, baseline=baseline)


def _rows(dataset: Path) -> Dialogues:
    """The rows of a data set; raises UsageError when the file is none, or cannot be read."""
    from ftsec_audit.files import ArtifactFile, LocalBytes
    from ftsec_audit.formats import dialogues

    try:
        size = LocalBytes(dataset).size
        return dialogues.read(ArtifactFile(str(dataset), size, lambda path: LocalBytes(Path(path))))
    except FtsecError as error:
        raise UsageError(f"the data set cannot be read: {error}") from error


def scan_many(references: Iterable[str], **options: Any) -> Iterator[Report]:
    """`scan` of each reference in turn, with the same options."""
    for reference in references:
        yield scan(reference, **options)


def judged(
    report: Report,
    policy: Policy,
    *,
    ignore_file: IgnoreFile | None = None,
    baseline: Baseline | None = None,
) -> Report:
    """The report with accepted findings set aside and the verdict of `policy`; nothing is measured.

    What a waiver of an earlier policy had set aside counts again unless this policy waives it too; what an
    ignore file or a baseline had set aside stays so.
    """
    from ftsec_audit.suppress import sift

    waived = [entry.finding for entry in report.suppressed if entry.by.startswith("waivers[")]
    accepted = [entry for entry in report.suppressed if not entry.by.startswith("waivers[")]
    limits = [limit for limit in report.limits if not limit.startswith("waivers[")]
    sifted = sift(
        (*report.findings, *waived),
        report.artifact,
        waivers=policy.waivers,
        ignore=ignore_file,
        baseline=baseline,
        today=date.today(),
    )
    report = replace(
        report,
        findings=sifted.findings,
        suppressed=(*accepted, *sifted.suppressed),
        limits=tuple(dict.fromkeys((*limits, *sifted.expired))),
    )
    return replace(report, decision=policy.decide(report))


def calibrate(
    benign: Iterable[tuple[str, Provenance | None]],
    *,
    name: str,
    version: str,
    description: str = "",
    offline: bool = False,
    progress: Progress | None = None,
) -> Built:
    """A calibration pack from benign artifacts, each with its origin where that is known."""
    from ftsec_audit.calibration.build import build_pack
    from ftsec_audit.sources import resolve

    artifacts = (
        (resolve(reference, offline=offline, progress=progress), origin) for reference, origin in benign
    )
    detectors = tuple(cls() for cls in _detector_classes())
    return build_pack(
        artifacts,
        detectors,
        stream=_deltas,
        name=name,
        version=version,
        description=description,
        progress=progress,
    )


def render(report: Report, format: str = "table") -> str:
    """The report as text: `table`, `json`, `jsonl`, `sarif`, `html` or `markdown`."""
    from ftsec_audit import report as formats

    return formats.render(report, format)


def rules() -> tuple[Rule, ...]:
    """Every rule there is, by id."""
    found = (rule for detector in _detector_classes() for rule in detector.rules)
    return tuple(sorted(found, key=lambda rule: rule.id))


@dataclass(frozen=True, kw_only=True)
class RulePage:
    """Everything there is to say about one rule."""

    rule: Rule
    detector: str
    page: str
    """The documentation of the detector's module: statistic, source, false positives, evasions, cost."""
    references: tuple[Reference, ...]


def explain(rule_id: str) -> RulePage:
    """The page of one rule; raises UsageError for an unknown id."""
    for detector in _detector_classes():
        for rule in detector.rules:
            if rule.id == rule_id.upper():
                page = inspect.cleandoc(sys.modules[detector.__module__].__doc__ or "")
                return RulePage(
                    rule=rule, detector=detector.__name__, page=page, references=references(rule.id)
                )
    raise UsageError(f"{rule_id!r} is no rule", hint="ftsec-audit rules lists them")


def fingerprint(select: Sequence[str] = (), ignore: Sequence[str] = ()) -> tuple[str, ...]:
    """What decides over the answers besides the bytes: every detector's label, and the rules left out."""
    detectors = tuple(cls() for cls in _detector_classes())
    every_rule = [rule.id for detector in detectors for rule in detector.rules]
    deselected = Selection(select=tuple(select), ignore=tuple(ignore)).deselected(every_rule)
    return (*sorted(detector.label for detector in detectors), *sorted(deselected))


def was_interrupted(report: Report) -> bool:
    """Whether Ctrl-C ended this scan before it was done."""
    from ftsec_audit.runner import INTERRUPTED

    return any(entry.reason == INTERRUPTED for entry in report.not_looked_at)


def _known_detectors() -> tuple[Entry, ...]:
    from detectors.registry import known

    return known()


def _detector_classes() -> tuple[type[Detector], ...]:
    from detectors.registry import detectors

    return detectors()


def _opener(subject: Subject, **options: Any) -> OpenSessions:
    """Opens the subject's model and its base when the runner asks for them."""

    def open_them(seconds: float | None) -> AbstractContextManager[Sessions]:
        from ftsec_audit.session import SessionOptions, open_sessions

        return open_sessions(subject, SessionOptions(max_seconds=seconds, **options))

    return open_them


def _deltas(subject: Subject) -> Iterator[Delta]:
    """The updates of a subject; torch is imported only when there are weights to be read."""
    from ftsec_audit.artifact import ArtifactKind

    if subject.artifact.kind is ArtifactKind.FILES:
        return iter(())
    from ftsec_audit.weights.stream import deltas

    return deltas(subject)
