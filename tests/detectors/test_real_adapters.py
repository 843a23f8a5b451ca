"""Real, presumed-benign adapters: nobody crashes, and nobody is accused on statistics alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ftsec_audit.api import scan
from ftsec_audit.calibration.bank import Calibration
from ftsec_audit.types import Confidence, Outcome

DATA = Path(__file__).parents[3] / "shared" / "data" / "adapters"
MANIFEST = DATA / "manifest.json"
ENTRIES = json.loads(MANIFEST.read_text()) if MANIFEST.is_file() else []


@pytest.mark.shared
@pytest.mark.skipif(not ENTRIES, reason="the calibration material is not here")
@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry["dir"].rsplit("/", 1)[-1])
def test_a_real_adapter_is_not_accused(entry):
    calibration = Calibration.load().excluding([entry["repo"]])
    report = scan(str(DATA / entry["dir"]), no_base=True, offline=True, cache=False, calibration=calibration)
    assert not [f for f in report.findings if f.outcome is Outcome.ERROR]
    assert not [f for f in report.detected() if f.confidence > Confidence.LOW]
