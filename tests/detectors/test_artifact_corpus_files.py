"""The file rules over the generated corpus: what is stopped, what is flagged, what passes as clean."""

from __future__ import annotations

import time
from collections.abc import Iterator
from importlib import import_module

import pytest
from corpus import CorpusSample, Label

from detectors.container_anomaly import ContainerAnomaly
from detectors.foreign_format import ForeignFormat
from detectors.gguf_structure import GgufStructure
from detectors.onnx_reference import OnnxReference
from detectors.pickle_code import PickleCode
from detectors.pickle_structure import PickleStructure
from detectors.resource_bomb import ResourceBomb
from detectors.safetensors_structure import SafetensorsStructure
from detectors.unreadable_file import UnreadableFile
from ftsec_audit.artifact import Artifact
from ftsec_audit.contracts import Subject
from ftsec_audit.files import ArtifactFile, MemoryBytes
from ftsec_audit.types import Finding, NotLookedAt, Observation, Outcome, Severity

MODULES = ("pickles", "containers", "safetensors_gguf", "foreign")
DETECTORS = (
    PickleCode(),
    PickleStructure(),
    ContainerAnomaly(),
    ResourceBomb(),
    SafetensorsStructure(),
    GgufStructure(),
    OnnxReference(),
    ForeignFormat(),
    UnreadableFile(),
)
SECONDS = 20.0
"""Far above the two seconds a file should take, because test machines are shared; a hang is what it finds."""


def look(sample: CorpusSample) -> list[Observation]:
    files = [
        ArtifactFile(path, len(data), lambda _, data=data: MemoryBytes(data))
        for path, data in sample.files.items()
    ]
    subject = Subject(artifact=Artifact.of("corpus", "corpus", files), base=None, base_reason="none")
    return [observation for detector in DETECTORS for observation in detector.inspect(subject)]


def blocks(observations: list[Observation], threshold: Severity = Severity.HIGH) -> bool:
    return any(
        isinstance(o, Finding) and o.outcome is Outcome.DETECTED and o.severity >= threshold
        for o in observations
    )


def is_incomplete(observations: list[Observation]) -> bool:
    return any(isinstance(o, NotLookedAt) and o.incomplete for o in observations)


@pytest.fixture(scope="module", params=[*MODULES, pytest.param("bombs", marks=pytest.mark.slow)])
def looked_at(request: pytest.FixtureRequest) -> Iterator[list[tuple[CorpusSample, list[Observation]]]]:
    results = []
    for sample in import_module(f"corpus.{request.param}").samples():
        start = time.perf_counter()
        results.append((sample, look(sample)))
        assert time.perf_counter() - start < SECONDS, f"{sample.name} took too long"
    yield results


def test_hostile_files_are_stopped_by_a_finding(looked_at) -> None:
    hostile = [(s, found) for s, found in looked_at if s.label is Label.MALICIOUS]
    missed = [sample.name for sample, found in hostile if not blocks(found)]
    assert len(missed) <= 0.01 * len(hostile), missed


def test_honest_files_are_not_flagged(looked_at) -> None:
    honest = [(s, found) for s, found in looked_at if s.label is Label.BENIGN]
    flagged = {
        sample.name: [o.summary for o in found if isinstance(o, Finding) and o.outcome is Outcome.DETECTED]
        for sample, found in honest
        if blocks(found, Severity.MEDIUM)
    }
    assert len(flagged) <= 0.01 * len(honest), flagged


def test_damaged_files_never_pass_as_clean(looked_at) -> None:
    damaged = [(s, found) for s, found in looked_at if s.label is Label.CORRUPT]
    assert not [
        sample.name
        for sample, found in damaged
        if not blocks(found, Severity.MEDIUM) and not is_incomplete(found)
    ]


def test_every_rule_answers_every_sample(looked_at) -> None:
    rules = {rule.id for detector in DETECTORS for rule in detector.rules}
    for sample, found in looked_at:
        assert {o.rule for o in found if isinstance(o, Finding)} == rules, sample.name


def test_findings_name_their_file_and_one_finding_covers_it(looked_at) -> None:
    for sample, found in looked_at:
        hits = [o for o in found if isinstance(o, Finding) and o.outcome is Outcome.DETECTED]
        assert len({(hit.rule, hit.evidence[0].location.file) for hit in hits}) == len(hits), sample.name
        assert all(piece.location.file in sample.files for hit in hits for piece in hit.evidence)
        assert all(hit.remediation for hit in hits)
