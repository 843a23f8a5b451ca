"""One detector over one subject on disk, as a scan would run it."""

from __future__ import annotations

from pathlib import Path

from ftsec_audit import runner
from ftsec_audit.calibration.bank import Calibration
from ftsec_audit.contracts import Detector, Subject
from ftsec_audit.sources import resolve
from ftsec_audit.types import Finding, Profile
from ftsec_audit.weights.stream import deltas

NO_BASE = "there is none in this test"


def subject(path: Path, base: Path | None = None, parent: Path | None = None) -> Subject:
    return Subject(
        artifact=resolve(str(path)),
        base=resolve(str(base)) if base else None,
        base_reason="" if base else NO_BASE,
        parent=resolve(str(parent)) if parent else None,
    )


def audit(
    detector: Detector,
    path: Path,
    base: Path | None = None,
    calibration: Calibration | None = None,
    *,
    parent: Path | None = None,
) -> runner.Audit:
    """Runs in the deep profile, against the shipped calibration unless another is given."""
    return runner.run(
        subject(path, base, parent),
        [detector],
        calibration or Calibration.load(),
        profile=Profile.DEEP,
        stream=deltas,
    )


def finding(result: runner.Audit, rule: str) -> Finding:
    """The only finding of a rule."""
    (found,) = [finding for finding in result.findings if finding.rule == rule]
    return found
