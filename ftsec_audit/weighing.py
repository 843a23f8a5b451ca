"""The one pass over the tensors of a subject, and what each detector got out of it."""

from __future__ import annotations

import inspect
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ftsec_audit.contracts import Progress, Subject, WeightDetector
from ftsec_audit.errors import BudgetExceeded, FtsecError, NotApplicable, Unsupported
from ftsec_audit.measurement_cache import identity_of_base, identity_of_code, identity_of_subject
from ftsec_audit.types import Finding, ModuleMeasurement, Outcome

if TYPE_CHECKING:
    from ftsec_audit.measurement_cache import MeasurementCache
    from ftsec_audit.weights.delta import Delta

_LOG = logging.getLogger("ftsec_audit")
_LONGEST_MESSAGE = 300

Deltas = Callable[[Subject], Iterator["Delta"]]
Values = Mapping[str, float | list[float]]


class OutOfTime(BudgetExceeded):
    """The scan's own time budget, as opposed to a bound that a parser set on its input."""


@dataclass(frozen=True)
class Deadline:
    """When a scan has to end; None is never. Bytes are bounded where files are opened."""

    seconds: float | None = None
    start: float = field(default_factory=time.monotonic)

    @property
    def left(self) -> float | None:
        """Seconds until then."""
        return None if self.seconds is None else self.seconds - (time.monotonic() - self.start)

    def check(self) -> None:
        if self.seconds is not None and time.monotonic() - self.start > self.seconds:
            raise OutOfTime(f"the time budget of {self.seconds:g} s was used up")


@dataclass(frozen=True)
class Gap:
    """Tensors that a detector could not measure: what it then says about the whole is qualified."""

    outcome: Outcome
    reason: str
    whole: bool = False
    """Whether nothing at all was or could be measured."""

    def applied_to(self, finding: Finding) -> Finding:
        """A clean answer over a part is no answer about the whole; a detection stands, and says so."""
        if self.whole and finding.outcome is not Outcome.DETECTED:
            return replace(finding, outcome=self.outcome, summary=self.reason)
        if finding.outcome is Outcome.NOT_DETECTED:
            return replace(
                finding, outcome=self.outcome, summary=f"{self.reason}; the rest: {finding.summary}"
            )
        if finding.outcome is Outcome.DETECTED:
            return replace(finding, summary=f"{finding.summary} ({self.reason})")
        return finding


@dataclass(kw_only=True)
class Weighing:
    """The single pass over the deltas, and what each detector got out of it."""

    subject: Subject
    deadline: Deadline
    progress: Progress
    cache: MeasurementCache | None
    places: dict[str, ModuleMeasurement] = field(default_factory=dict)
    values: dict[str, dict[str, Values]] = field(default_factory=dict)
    """Detector label → module name → what it measured there."""
    failures: dict[str, list[tuple[str, Outcome, str]]] = field(default_factory=dict)
    """Detector label → (module, outcome, reason)."""
    broken: tuple[Outcome, str] | None = None
    """Why the stream itself ended early."""

    def measure(self, detectors: Sequence[WeightDetector], stream: Deltas) -> None:
        # In this order, whatever the cache holds: a report reads the same whether or not it was half full.
        self.values = {detector.label: {} for detector in detectors}
        todo = [detector for detector in detectors if not self._recall(detector)]
        if not todo:
            self.progress.note("measurements taken from the cache")
            return
        for detector in todo:
            self.failures[detector.label] = []
        self.progress.start("measuring", None, "tensors")
        try:
            with _one_thread(self.subject):
                for delta in stream(self.subject):
                    self.deadline.check()
                    self._measure_one(todo, delta)
                    self.progress.advance()
        except OutOfTime:
            raise
        except FtsecError as error:
            self.broken = outcome_of(error), str(error)
        except Exception as error:  # noqa: BLE001 - a reader's bug costs the weight rules, not the scan
            _LOG.debug("reading the weights failed", exc_info=True)
            self.broken = (
                Outcome.ERROR,
                f"{type(error).__name__} while reading weights: {error}"[:_LONGEST_MESSAGE],
            )
        for detector in todo:
            self._remember(detector)

    def modules(self) -> tuple[ModuleMeasurement, ...]:
        """One row per module, in stream order, with the values of every detector."""
        rows = []
        for name, place in self.places.items():
            merged: dict[str, float | list[float]] = {}
            for per_module in self.values.values():
                merged |= per_module.get(name, {})
            rows.append(replace(place, values=merged))
        return tuple(rows)

    def gap(self, detector: WeightDetector) -> Gap | None:
        if self.broken:
            unread = self.broken[0] is Outcome.NOT_SUPPORTED and not self.places
            return Gap(*self.broken, whole=unread)
        failures = self.failures.get(detector.label, [])
        if not failures:
            return None
        worst = next((f for f in failures if f[1] is Outcome.ERROR), failures[0])
        return Gap(
            worst[1],
            f"{len(failures)} of {len(self.places)} modules not measured, e.g. {worst[0]}: {worst[2]}",
        )

    def _measure_one(self, detectors: Sequence[WeightDetector], delta: Delta) -> None:
        self.places[delta.name] = ModuleMeasurement(
            name=delta.name, role=delta.role, layer=delta.layer, shape=tuple(delta.shape)
        )
        for detector in detectors:
            failures = self.failures[detector.label]
            try:
                self.values[detector.label][delta.name] = dict(detector.measure(delta))
            except NotApplicable:
                continue
            except FtsecError as error:
                failures.append((delta.name, outcome_of(error), str(error)))
            except Exception as error:  # noqa: BLE001 - one tensor must not cost the others
                _LOG.debug("%s failed on %s", detector.label, delta.name, exc_info=True)
                failures.append(
                    (delta.name, Outcome.ERROR, f"{type(error).__name__}: {error}"[:_LONGEST_MESSAGE])
                )

    def _identity(self, detector: WeightDetector) -> tuple[str, ...] | None:
        """What the measurements depend on; None when the bytes are not pinned and nothing may be reused."""
        base, parent = self.subject.base, self.subject.parent
        names = [identity_of_subject(self.subject.artifact), identity_of_base(base) if base else "no base"]
        names += [identity_of_base(parent)] if parent else []
        own, package = Path(inspect.getfile(type(detector))).parent, Path(__file__).parent
        code = [identity_of_code(folder) for folder in (own, package / "weights", package / "formats")]
        return (*names, detector.label, *code) if all(names) else None

    def _recall(self, detector: WeightDetector) -> bool:
        identity = self._identity(detector) if self.cache else None
        modules = self.cache.get(*identity) if self.cache and identity else None
        if modules is None:
            return False
        self.values[detector.label] = {module.name: module.values for module in modules}
        for module in modules:
            self.places.setdefault(module.name, replace(module, values={}))
        return True

    def _remember(self, detector: WeightDetector) -> None:
        if self.cache is None or self.broken or self.failures[detector.label]:
            return
        identity = self._identity(detector)
        if identity is None:
            return
        values = self.values[detector.label]
        modules = (replace(place, values=dict(values.get(name, {}))) for name, place in self.places.items())
        self.cache.put(tuple(modules), *identity)


@contextmanager
def _one_thread(subject: Subject) -> Iterator[None]:
    """While an adapter is measured: its factors are so small that threads mostly wait for each other."""
    if subject.artifact.kind != "adapter":
        yield
        return
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def outcome_of(error: FtsecError) -> Outcome:
    if isinstance(error, NotApplicable):
        return Outcome.NOT_APPLICABLE
    return Outcome.NOT_SUPPORTED if isinstance(error, Unsupported) else Outcome.ERROR
