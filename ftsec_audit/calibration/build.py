"""Building a calibration pack: measure benign artifacts once, keep their features and their origin."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol, TypeGuard

from ftsec_audit.calibration.pack import Entry, Pack, Provenance
from ftsec_audit.calibration.recipe import Recipe
from ftsec_audit.calibration.spectra import shapes
from ftsec_audit.contracts import Detector, Measurements, Progress, Subject, WeightDetector
from ftsec_audit.errors import FtsecError, NotApplicable
from ftsec_audit.files import sha256
from ftsec_audit.types import ModuleMeasurement, NotLookedAt

if TYPE_CHECKING:
    from ftsec_audit.artifact import Artifact
    from ftsec_audit.weights.delta import Delta

Deltas = Callable[[Subject], Iterator["Delta"]]


class Calibrated(Protocol):
    """A weight detector that compares an artifact with a benign population."""

    feature_set: ClassVar[str]
    """Name and version of its feature vector; a bank of another version is never compared with."""

    @property
    def label(self) -> str: ...

    def features(self, table: Measurements) -> dict[str, float]:
        """The artifact-level vector; empty where it does not exist."""
        ...


@dataclass(frozen=True, kw_only=True)
class Built:
    """A pack, and the artifacts that could not be taken into it."""

    pack: Pack
    left_out: tuple[NotLookedAt, ...]


def build_pack(
    artifacts: Iterable[tuple[Artifact, Provenance | None]],
    detectors: Sequence[Detector],
    *,
    stream: Deltas,
    name: str,
    version: str,
    description: str = "",
    progress: Progress | None = None,
) -> Built:
    """Measure each artifact with every calibrated detector among `detectors`.

    Provenance is taken as given; what is missing of it is read off the artifact: its reference is then the
    repository, so that artifacts without a known origin count as independent. Artifacts whose weights
    cannot be read, or that hold nothing any detector measures, are left out with a reason.
    """
    progress = progress or Progress()
    weighers = [detector for detector in detectors if isinstance(detector, WeightDetector)]
    calibrated = [detector for detector in detectors if is_calibrated(detector)]
    entries, left_out = [], []
    progress.start("calibrating", None, "artifacts")
    for artifact, origin in artifacts:
        try:
            table = measure(Subject(artifact=artifact, base=None), weighers, stream)
        except FtsecError as error:
            left_out.append(NotLookedAt(what=artifact.reference, reason=str(error), incomplete=True))
            continue
        features = {detector.feature_set: detector.features(table) for detector in calibrated}
        features = {key: values for key, values in features.items() if values}
        if features:
            entries.append(
                Entry(
                    provenance=_origin(artifact, origin),
                    recipe=Recipe.of(table),
                    features=features,
                    spectra=shapes(table.modules),
                )
            )
        else:
            left_out.append(NotLookedAt(what=artifact.reference, reason="holds no update that is measured"))
        progress.advance()
    pack = Pack(
        name=name,
        version=version,
        entries=tuple(sorted(entries, key=lambda e: (e.provenance.repository, e.provenance.path))),
        detectors={detector.feature_set: detector.label for detector in calibrated},
        description=description,
    )
    return Built(pack=pack, left_out=tuple(left_out))


def is_calibrated(detector: object) -> TypeGuard[Calibrated]:
    """Whether a detector has a feature vector that a pack can hold."""
    return hasattr(detector, "feature_set") and hasattr(detector, "features")


def measure(subject: Subject, detectors: Sequence[WeightDetector], stream: Deltas) -> Measurements:
    """One pass over the subject's updates; unlike a scan, the first thing that fails ends it."""
    modules = []
    for delta in stream(subject):
        values: dict[str, float | list[float]] = {}
        for detector in detectors:
            try:
                values |= detector.measure(delta)
            except NotApplicable:
                continue
        modules.append(
            ModuleMeasurement(
                name=delta.name, role=delta.role, layer=delta.layer, shape=tuple(delta.shape), values=values
            )
        )
    return Measurements(modules=tuple(modules), subject=subject)


def _origin(artifact: Artifact, given: Provenance | None) -> Provenance:
    if given is not None:
        return given
    weights = sorted(artifact.weight_files, key=lambda file: file.path)
    digests = [(file.digest or sha256(file.open())).removeprefix("sha256:") for file in weights]
    joined = digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
    return Provenance(
        repository=artifact.reference,
        path=weights[0].path if weights else "",
        sha256=joined,
        base=artifact.declared_base,
    )
