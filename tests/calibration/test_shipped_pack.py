"""The pack that ships: what is in it, that it fits the detectors, and that it accuses none of its own."""

from __future__ import annotations

import re
from functools import cache

import pytest

from detectors.registry import detectors
from detectors.spectral_signature import SpectralSignature
from ftsec_audit.calibration import bank
from ftsec_audit.calibration.bank import Calibration
from ftsec_audit.calibration.build import is_calibrated
from ftsec_audit.types import Confidence, Outcome


@cache
def shipped():
    return Calibration.load()


def entries():
    return [entry for pack in shipped().packs for entry in pack.entries]


def test_every_entry_can_be_traced_to_its_bytes():
    assert len(entries()) >= 50
    for entry in entries():
        assert re.fullmatch(r"[\w.-]+/[\w.-]+", entry.provenance.repository)
        assert re.fullmatch(r"[0-9a-f]{40}", entry.provenance.commit)
        assert re.fullmatch(r"[0-9a-f]{64}", entry.provenance.sha256)
        assert entry.provenance.path


def test_it_is_small():
    assert sum(path.stat().st_size for path in bank.SHIPPED.glob("*.json*")) <= 1 << 20


def test_it_was_made_by_the_detectors_that_use_it():
    # Thresholds may have moved since; the arithmetic, which the version numbers, may not.
    calibrated = filter(is_calibrated, (cls() for cls in detectors(third_party=False)))
    current = {detector.feature_set: detector.label.split(":")[0] for detector in calibrated}
    for pack in shipped().packs:
        assert {name: label.split(":")[0] for name, label in pack.detectors.items()} == current


@pytest.mark.parametrize("index", range(50))
def test_no_benign_adapter_is_accused_by_the_others(index):
    entry = entries()[index]
    features = entry.features[SpectralSignature.feature_set]
    detector = SpectralSignature()
    population = (
        shipped()
        .excluding([entry.provenance.repository])
        .population(detector.feature_set, entry.recipe, features, enough=detector.enough)
    )
    if population is None or population.n_groups < detector.least:
        pytest.skip("no comparable population without its own repository")
    assert entry.provenance.repository not in population.groups
    found = detector.compare(features, population)
    assert found.outcome is Outcome.NOT_DETECTED or found.confidence is Confidence.LOW
