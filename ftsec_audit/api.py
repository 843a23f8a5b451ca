"""The wiring, and the public face: sources, detectors, calibration, runner and policy put together.

The only file that names the registry of detectors. Nothing here prints, exits or keeps state.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftsec_audit import planning
from ftsec_audit.contracts import Detector, Progress, Subject
from ftsec_audit.errors import FtsecError, UsageError
from ftsec_audit.planning import Plan, Selection
from ftsec_audit.scan_options import ScanOptions, takes_scan_options
from ftsec_audit.taxonomy import Reference, references
from ftsec_audit.types import Profile, Report, Rule

if TYPE_CHECKING:
    from detectors.registry import Entry
    from ftsec_audit.artifact import Artifact
    from ftsec_audit.calibration.bank import Calibration
    from ftsec_audit.calibration.build import Built
    from ftsec_audit.calibration.pack import Provenance
    from ftsec_audit.formats.dialogues import Dialogues
    from ftsec_audit.policy import Policy
    from ftsec_audit.runner import Audit, OpenSessions
    from ftsec_audit.session import Backend, KeptBase, Sessions
    from ftsec_audit.sources.transfer import Transfer
    from ftsec_audit.suppress import Baseline, IgnoreFile
    from ftsec_audit.weights.delta import Delta


@takes_scan_options
def plan(reference: str, options: ScanOptions | None = None, **keywords: Any) -> Plan:
    """Resolve the artifact and its base, and choose detectors; reads configurations only.

    Takes what `scan` takes. With a `stack`, or of a folder that describes one, the weights of its adapters
    are read and put together. Raises SourceError when the artifact, or a base given by name, cannot be had.
    """
    return planning.plan(reference, (options or ScanOptions()).changed(keywords), _known_detectors())


@takes_scan_options
def scan(reference: str, options: ScanOptions | None = None, **keywords: Any) -> Report:
    """Audit one artifact: a directory, a file, `org/model`, `org/model@rev`, `hf://…`, `s3://…`.

    The keywords are the fields of `ScanOptions`, which says what each means. Raises UsageError for bad
    arguments and SourceError when there is nothing to audit; everything that goes wrong later is part of
    the report.
    """
    return scan_with(reference, (options or ScanOptions()).changed(keywords))


def scan_with(
    reference: str,
    options: ScanOptions,
    *,
    transfer: Transfer | None = None,
    kept_base: KeptBase | None = None,
) -> Report:
    """`scan` by whoever counts the transfers of a scan, and keeps a base from one to the next."""
    from ftsec_audit.assembly import assemble
    from ftsec_audit.calibration.bank import Calibration
    from ftsec_audit.policy import Policy
    from ftsec_audit.sources.transfer import Transfer

    judge = options.policy if isinstance(options.policy, Policy) else Policy.load(options.policy)
    calibration = options.calibration or Calibration.load()
    transfer = transfer or Transfer()
    planned = planning.plan(reference, options, _known_detectors(), transfer)
    if options.required_signature is not None:
        options.required_signature.check(planned.subject.artifact)
    report = assemble(
        planned.subject,
        _audit(planned, options, calibration, kept_base),
        profile=planned.profile,
        rules=planned.rules,
        calibration=calibration,
        command=options.command,
        with_digest=options.max_bytes is None,
        exact=options.hash_everything,
    )
    if transfer.requests and options.progress:
        options.progress.note(f"transferred {transfer.bytes:,} bytes in {transfer.requests} requests")
    limits = (*report.limits, *_asked_elsewhere(planned.subject.artifact, options.backend))
    report = replace(report, seed=options.seed, limits=limits)
    return judged(report, judge, ignore_file=options.ignore_file, baseline=options.baseline)


def _audit(
    planned: Plan, options: ScanOptions, calibration: Calibration, kept_base: KeptBase | None
) -> Audit:
    """Run the detectors of a plan over its subject, within the limits of the options."""
    from ftsec_audit import runner
    from ftsec_audit.measurement_cache import MeasurementCache, default_root
    from ftsec_audit.metering import metered

    subject, limit = planned.subject, options.max_bytes
    if limit is not None:
        subject = metered(subject, limit)
    if options.dataset is not None:
        subject = replace(subject, dataset=_rows(options.dataset))
    return runner.run(
        subject,
        planned.detectors,
        calibration,
        profile=planned.profile,
        stream=_deltas,
        deselected=planned.deselected,
        beyond=planned.beyond,
        progress=options.progress,
        max_seconds=options.max_seconds,
        # To know whether bytes were measured before, all of them would have to be read.
        cache=MeasurementCache(default_root()) if options.cache and limit is None else None,
        sessions=_opener(subject, options, planned.profile, kept_base),
    )


def _asked_elsewhere(artifact: Artifact, backend: Backend) -> Iterator[str]:
    """What to say where the model that is asked is not the one whose weights are measured."""
    graph = artifact.exported() if backend == "onnx" else None
    if graph is not None and graph is not artifact:
        measured, asked = artifact.weight_files[0].path, graph.weight_files[0].path
        yield f"asked was {asked}, measured {measured}: whether they are the same model was not compared"


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


def _opener(
    subject: Subject, options: ScanOptions, profile: Profile, kept_base: KeptBase | None
) -> OpenSessions:
    """Opens the subject's model and its base when the runner asks for them."""

    def open_them(seconds: float | None) -> AbstractContextManager[Sessions]:
        from ftsec_audit.session import SessionOptions, open_sessions

        how = SessionOptions(
            backend=options.backend,
            device=options.device,
            seed=options.seed,
            max_tokens=options.max_tokens,
            max_seconds=seconds,
            profile=profile,
            probes=options.probes,
            show_prompts=options.show_prompts,
            languages=options.languages,
            kept=kept_base,
        )
        return open_sessions(subject, how)

    return open_them


def _deltas(subject: Subject) -> Iterator[Delta]:
    """The updates of a subject; torch is imported only when there are weights to be read."""
    from ftsec_audit.artifact import ArtifactKind

    if subject.artifact.kind is ArtifactKind.FILES:
        return iter(())
    from ftsec_audit.weights.stream import deltas

    return deltas(subject)
