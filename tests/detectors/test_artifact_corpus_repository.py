"""Every artifact rule over the generated templates, configurations, tokenizers and repositories."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module

import pytest
from corpus import CorpusSample, Label

from detectors.registry import detectors
from ftsec_audit.artifact import Artifact
from ftsec_audit.contracts import ArtifactDetector, Subject
from ftsec_audit.files import ArtifactFile, MemoryBytes
from ftsec_audit.types import Confidence, Finding, NotLookedAt, Observation, Outcome, Severity

MODULES = ("templates", "repository", "peft_configs", "tokenizers")


def corpus() -> Iterator[CorpusSample]:
    for module in MODULES:
        yield from import_module(f"corpus.{module}").samples()


def artifact(files: Mapping[str, bytes], links: Mapping[str, str]) -> Artifact:
    regular = [
        ArtifactFile(path, len(data), lambda _, data=data: MemoryBytes(data)) for path, data in files.items()
    ]
    linked = [
        ArtifactFile(path, 0, lambda _: MemoryBytes(b""), link_target=target)
        for path, target in links.items()
    ]
    return Artifact.of("corpus", "corpus", [*regular, *linked])


def look(sample: CorpusSample) -> list[Observation]:
    base = artifact(sample.base_files, {}) if sample.base_files is not None else None
    subject = Subject(artifact=artifact(sample.files, sample.links), base=base, base_reason="none")
    kinds = [detector() for detector in detectors() if issubclass(detector, ArtifactDetector)]
    return [observation for detector in kinds for observation in detector.inspect(subject)]


def detections(found: list[Observation]) -> list[Finding]:
    return [item for item in found if isinstance(item, Finding) and item.outcome is Outcome.DETECTED]


def is_incomplete(found: list[Observation]) -> bool:
    return any(isinstance(item, NotLookedAt) and item.incomplete for item in found)


@pytest.mark.parametrize("sample", list(corpus()), ids=lambda sample: sample.name)
def test_sample_is_told_for_what_it_is(sample: CorpusSample) -> None:
    found = look(sample)
    hits = detections(found)
    blocking = [hit for hit in hits if hit.severity >= Severity.HIGH and hit.confidence >= Confidence.MEDIUM]
    if sample.label is Label.MALICIOUS:
        assert blocking, "not stopped by a finding"
        assert all(hit.evidence and hit.summary for hit in blocking)
    elif sample.label is Label.BENIGN:
        assert not hits, [hit.summary for hit in hits]
        assert not is_incomplete(found)
    else:
        assert blocking or is_incomplete(found), "a broken file passed as clean"
