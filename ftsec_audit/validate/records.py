"""What is kept of a scanned sample: all that a score needs, in a few kilobytes, and no report.

Records are JSON lines. From them every table can be computed again by anyone, without the samples.
"""

from __future__ import annotations

import gzip
import json
import math
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from detectors.spectral_features import artifact_features
from ftsec_audit.calibration.recipe import Recipe
from ftsec_audit.errors import UsageError
from ftsec_audit.types import Confidence, Finding, Outcome, Report, Severity, Verdict
from ftsec_audit.validate.examine import Examined, digest
from ftsec_audit.validate.population import Labelled, Located
from ftsec_audit.validate.statistics import statistics
from ftsec_audit.validate.triggers import Recovered, recovered

_DIGITS = 4


@dataclass(frozen=True, kw_only=True)
class Record:
    """A sample and what a scan said of it, or why there was no scan."""

    sample: Labelled
    digest: str
    """Of the sample's bytes."""
    profile: str
    verdict: Verdict | None
    findings: tuple[Finding, ...] = ()
    """Without summary and evidence."""
    features: Mapping[str, float] = field(default_factory=dict)
    """The spectral vector of FTA201."""
    comparable: Recipe | None = None
    """By which FTA201 looks for a population."""
    statistics: Mapping[str, float] = field(default_factory=dict)
    """Numbers that rules are made of or that others use; see `statistics.py`."""
    trigger: Recovered = field(default_factory=Recovered)
    peer: str = ""
    """What AdapterSentry decided; empty where it was not asked."""
    error: str = ""

    @property
    def is_scanned(self) -> bool:
        return self.verdict is not None


def record(examined: Examined, profile: str, peer: str = "") -> Record:
    """What is kept of one sample and its report."""
    sample, report = examined.sample, examined.report
    facts = Labelled(**{name: getattr(sample, name) for name in Labelled.__dataclass_fields__})
    if report is None:
        return Record(
            sample=facts,
            digest=digest(sample),
            profile=profile,
            verdict=None,
            peer=peer,
            error=examined.error,
        )
    return Record(
        sample=facts,
        digest=digest(sample),
        profile=profile,
        verdict=report.verdict,
        findings=tuple(_bare(finding) for finding in report.findings),
        features=artifact_features(report.measurements),
        comparable=_recipe(sample, report),
        statistics=statistics(report),
        trigger=recovered(sample, report),
        peer=peer,
    )


def dumps(records: Iterable[Record]) -> str:
    return "".join(
        json.dumps(_rounded(_to_json(one)), ensure_ascii=False, separators=(",", ":")) + "\n"
        for one in records
    )


def load(path: Path) -> list[Record]:
    """The records of a file, gzipped where its name ends in `.gz`; raises UsageError saying what is wrong."""
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        return [_from_json(json.loads(line)) for line in data.decode("utf-8").splitlines() if line.strip()]
    except (
        OSError,
        EOFError,
        zlib.error,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        RecursionError,
    ) as error:
        raise UsageError(
            f"holds no records ({type(error).__name__}: {error})",
            where=str(path),
            hint="ftsec-audit validate writes records.jsonl",
        ) from error


def _bare(finding: Finding) -> Finding:
    return Finding(
        rule=finding.rule,
        outcome=finding.outcome,
        severity=finding.severity,
        confidence=finding.confidence,
        summary="",
        p_value=finding.p_value,
    )


def _recipe(sample: Located, report: Report) -> Recipe:
    """Read off the sample's configuration and the measured modules, as FTA201 does."""
    from ftsec_audit.contracts import Measurements, Subject
    from ftsec_audit.sources import resolve

    artifact = resolve(str(sample.folder), offline=True)
    return Recipe.of(Measurements(modules=report.measurements, subject=Subject(artifact=artifact, base=None)))


def _to_json(one: Record) -> dict[str, Any]:
    """Detections and p-values in full; of all other rules only the ids, by outcome."""
    told = [f for f in one.findings if f.outcome is Outcome.DETECTED or f.p_value is not None]
    quiet: dict[str, list[str]] = {}
    for finding in one.findings:
        if finding not in told:
            quiet.setdefault(finding.outcome, []).append(finding.rule)
    return {
        "sample": asdict(one.sample),
        "digest": one.digest,
        "profile": one.profile,
        "verdict": one.verdict,
        "told": [[f.rule, f.outcome, f.severity, f.confidence, f.p_value] for f in told],
        "quiet": {outcome: " ".join(rules) for outcome, rules in quiet.items()},
        "features": dict(one.features),
        "comparable": asdict(one.comparable) if one.comparable else None,
        "statistics": dict(one.statistics),
        "trigger": asdict(one.trigger),
        "peer": one.peer,
        "error": one.error,
    }


def _from_json(raw: Mapping[str, Any]) -> Record:
    tuples = ("stealth", "trigger", "expected_rules")
    sample: dict[str, Any] = {name: tuple(v) if name in tuples else v for name, v in raw["sample"].items()}
    findings = [
        _finding(rule, Outcome(outcome), Severity(severity), Confidence(confidence), p)
        for rule, outcome, severity, confidence, p in raw["told"]
    ] + [
        _finding(rule, Outcome(outcome), Severity.INFO, Confidence.HIGH, None)
        for outcome, rules in raw["quiet"].items()
        for rule in rules.split()
    ]
    return Record(
        sample=Labelled(**sample),
        digest=raw["digest"],
        profile=raw["profile"],
        verdict=Verdict(raw["verdict"]) if raw["verdict"] else None,
        findings=tuple(sorted(findings, key=lambda finding: finding.rule)),
        features=raw["features"],
        comparable=Recipe(**raw["comparable"]) if raw["comparable"] else None,
        statistics=raw["statistics"],
        trigger=Recovered(**raw["trigger"]),
        peer=raw["peer"],
        error=raw["error"],
    )


def _finding(
    rule: str, outcome: Outcome, severity: Severity, confidence: Confidence, p_value: float | None
) -> Finding:
    return Finding(
        rule=rule,
        outcome=outcome,
        severity=severity,
        confidence=confidence,
        summary="",
        p_value=p_value,
    )


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, (list, tuple)) else value
