"""FTA103 damaged-weights, FTA104 untrained: is every weight there, is it a number, does it do anything?

**Why it matters.** A file that cannot be read whole cannot be judged: truncation, or values that are not
finite, hide whatever else is there, and NaN makes every later statistic meaningless. Attackers damage
files to make scanners give up; training that diverged does the same by accident. An adapter whose every
`lora_B` is zero changes nothing: what was audited is then the base, and a pass says nothing about an adapter
that will be pushed under the same name later.

**Statistic.** Exact facts. FTA103: tensors with NaN or ±Inf among their values, tensors that cannot be read,
and structural damage met while indexing the files (spans beyond the end, overlaps that leave tensors out).
FTA104: every update is exactly zero.

**False positives.** None for the facts; that a diverged training run is no attack is for the reader to say.
FTA104 is reported with LOW severity: untrained checkpoints are common, and harmless.

**Evasions.** Finite values of absurd size are not damage (FTA201 and FTA202 see them).

**Cost.** One pass over the values, shared with the spectra.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ftsec_audit.artifact import ArtifactKind
from ftsec_audit.contracts import Measurements, WeightDetector
from ftsec_audit.errors import FormatError
from ftsec_audit.types import Confidence, Evidence, Finding, Location, ModuleMeasurement, Rule, Severity

if TYPE_CHECKING:
    from ftsec_audit.calibration.bank import Calibration
    from ftsec_audit.weights.delta import Delta

DAMAGED_WEIGHTS = Rule(
    id="FTA103",
    name="damaged-weights",
    question="Are there weights that cannot be read or are not finite?",
    severity=Severity.HIGH,
    remediation="Do not load it. Download the artifact again and compare its digest; if it is the same, ask "
    "the publisher for an intact version.",
)
UNTRAINED = Rule(
    id="FTA104",
    name="untrained",
    question="Does the adapter change nothing at all?",
    severity=Severity.LOW,
    remediation="Ask for the trained version. Nothing is known about an adapter that is pushed here later: "
    "pin the revision.",
)


@dataclass(frozen=True, kw_only=True)
class DamagedWeights(WeightDetector):
    rules = (DAMAGED_WEIGHTS, UNTRAINED)

    shown: int = 20
    """How many damaged tensors are listed one by one."""

    def measure(self, delta: Delta) -> Mapping[str, float | list[float]]:
        from ftsec_audit.weights.delta import DeltaKind

        if delta.change is None:
            return {"is_zero": 1.0} if delta.kind is DeltaKind.IDENTICAL else {}
        return {"is_finite": float(delta.finite()), "is_zero": float(delta.is_zero())}

    def judge(self, table: Measurements, calibration: Calibration) -> Iterator[Finding]:
        artifact = table.subject.artifact
        if artifact.kind is ArtifactKind.FILES:
            yield from (rule.not_applicable("no model weights were recognised") for rule in self.rules)
            return
        yield self._damage(table)
        yield self._no_op(table)

    def _damage(self, table: Measurements) -> Finding:
        broken = [module for module in table.modules if module.values.get("is_finite") == 0.0]
        evidence = [*_file_damage(table), *map(_not_finite, broken)]
        if not evidence:
            finite = len(table.column("is_finite"))
            return DAMAGED_WEIGHTS.not_detected(f"no damage to the files; {finite} changes are finite")
        return DAMAGED_WEIGHTS.detected(
            _counted(broken, len(table.modules), len(evidence) - len(broken)),
            confidence=Confidence.HIGH,
            evidence=evidence[: self.shown],
        )

    def _no_op(self, table: Measurements) -> Finding:
        if table.subject.artifact.adapter is None:
            return UNTRAINED.not_applicable("a checkpoint, not an adapter")
        zero = [module for module in table.modules if module.values.get("is_zero") == 1.0]
        if len(zero) < len(table.modules):
            return UNTRAINED.not_detected(f"{len(table.modules) - len(zero)} modules carry a change")
        if not table.modules:
            return UNTRAINED.not_supported("no module of the adapter could be read")
        return UNTRAINED.detected(
            f"no-op: the update of every one of {len(zero)} modules is exactly zero",
            confidence=Confidence.HIGH,
            evidence=[
                Evidence(
                    message=f"{len(zero)} of {len(table.modules)} updates are zero",
                    statistic="zero updates",
                    value=float(len(zero)),
                    unit="modules",
                )
            ],
        )


def _file_damage(table: Measurements) -> Iterator[Evidence]:
    """Damage met while indexing: what could not be taken into the index is not readable."""
    try:
        index = table.subject.artifact.tensors()
    except FormatError as error:
        yield Evidence(message=error.what, location=Location(file=error.where))
        return
    for problem in index.problems:
        if problem.fatal:
            location = Location(file=problem.file, tensor=problem.tensor, offset=problem.offset)
            yield Evidence(message=problem.message, statistic=problem.code, location=location)


def _not_finite(module: ModuleMeasurement) -> Evidence:
    return Evidence(
        message=f"values that are not finite in an update of shape {'×'.join(map(str, module.shape))}",
        statistic="finite",
        value=0.0,
        location=Location(tensor=module.name),
    )


def _counted(broken: Sequence[ModuleMeasurement], total: int, damaged: int) -> str:
    parts = [f"{len(broken)} of {total} modules hold values that are not finite"] if broken else []
    parts += [f"{damaged} damaged places in the weight files"] if damaged else []
    return "; ".join(parts)
