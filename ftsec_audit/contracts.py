"""The contracts between the program, its detectors and its reference attacks.

A detector is a frozen, keyword-only dataclass whose fields are its hyper-parameters. There are three
kinds, by what they look at: small files (`ArtifactDetector`), tensors (`WeightDetector`), behaviour
(`BehaviourDetector`). Each answers every one of its `rules` for every subject.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from ftsec_audit.types import Lead, ModuleMeasurement, Observation, Profile, Rule

if TYPE_CHECKING:
    from ftsec_audit.artifact import Artifact
    from ftsec_audit.calibration.bank import Calibration
    from ftsec_audit.formats.dialogues import Dialogues
    from ftsec_audit.session import ModelSession
    from ftsec_audit.weights.delta import Delta


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What is audited: an artifact and the base it was tuned from, if that could be had."""

    artifact: Artifact
    base: Artifact | None
    base_reason: str = ""
    """Why there is no base, ready to be shown; empty when there is one."""
    parent: Artifact | None = None
    """The model that the base was aligned from, where the user names it."""
    dataset: Dialogues | None = None
    """The rows it was tuned on, where the user has them."""


@dataclass(frozen=True, kw_only=True)
class Measurements:
    """All that was measured on one subject: the only thing a judge sees of the weights."""

    modules: tuple[ModuleMeasurement, ...]
    subject: Subject
    """For its configuration and file list; a judge reads no tensor."""

    def column(self, key: str) -> dict[str, float]:
        """Module name → the scalar statistic `key`, for the modules that have it."""
        values = {module.name: module.values.get(key) for module in self.modules}
        return {name: v for name, v in values.items() if isinstance(v, (int, float))}


@dataclass(frozen=True, kw_only=True)
class Detector(ABC):
    """What every detector is: rules, a version, hyper-parameters, and a fingerprint of the three."""

    rules: ClassVar[tuple[Rule, ...]]
    version: ClassVar[int] = 1
    """Raised whenever the arithmetic changes; part of the cache key."""
    profile: ClassVar[Profile] = Profile.QUICK
    """The smallest profile in which this detector runs."""

    @property
    def name(self) -> str:
        return type(self).__name__

    def fingerprint(self) -> str:
        """12 hex digits that change with the class, its version or any hyper-parameter."""
        content = [self.name, type(self).version, dataclasses.asdict(self)]
        return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:12]

    @cached_property
    def label(self) -> str:
        """`Name@version:fingerprint`, as printed in every finding."""
        return f"{self.name}@{type(self).version}:{self.fingerprint()}"


@dataclass(frozen=True, kw_only=True)
class ArtifactDetector(Detector):
    """Looks at small files and structure; reads no tensor values."""

    @abstractmethod
    def inspect(self, subject: Subject) -> Iterator[Observation]: ...


@dataclass(frozen=True, kw_only=True)
class WeightDetector(Detector):
    """Measures one `Delta` at a time, then judges the table of all measurements.

    `measure` is pure: the same delta gives the same numbers whatever was seen before. Its keys are
    plain statistic names; the runner prefixes nothing, so a name means one quantity everywhere.
    `judge` never reads a weight, so that a new calibration or policy costs nothing.
    """

    @abstractmethod
    def measure(self, delta: Delta) -> Mapping[str, float | list[float]]: ...

    @abstractmethod
    def judge(self, table: Measurements, calibration: Calibration) -> Iterable[Observation]: ...


@dataclass(frozen=True, kw_only=True)
class BehaviourDetector(Detector):
    """Asks the model and its base the same questions and reports the difference."""

    profile: ClassVar[Profile] = Profile.STANDARD

    @abstractmethod
    def probe(
        self, session: ModelSession, base: ModelSession | None, leads: tuple[Lead, ...]
    ) -> Iterator[Observation]: ...


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One labelled artifact on disk, written by a reference attack or as its benign twin."""

    path: Path
    truth: Mapping[str, object]
    """The content of its `truth.json`."""


@dataclass(frozen=True, kw_only=True)
class ReferenceAttack(ABC):
    """Produces a known-bad sample and its benign twin; fields are the recipe."""

    id: ClassVar[str]
    """`A01` … `A19`, as in the documentation."""
    name: ClassVar[str]
    """The command-line name, e.g. `token-backdoor`."""
    expected_rules: ClassVar[tuple[str, ...]]

    @abstractmethod
    def build(self, base: Path, out: Path, *, seed: int) -> Sample: ...

    @abstractmethod
    def build_twin(self, base: Path, out: Path, *, seed: int) -> Sample:
        """The same data minus the poison: same seed, same recipe, same regulariser."""


class Progress:
    """Told what is going on; the silent default. Subclasses draw it."""

    def start(self, stage: str, total: int | None = None, unit: str = "") -> None:
        """A stage begins; `total` in `unit` (`bytes`, `tensors`, `probes`, `artifacts`)."""

    def advance(self, amount: int = 1) -> None:
        """That much of the current stage is done."""

    def figures(self, values: Mapping[str, str]) -> None:
        """Where the whole stands, by name; in place of what was told before."""

    def note(self, message: str) -> None:
        """Something worth a log line."""
