"""FTA107 unread-tensors: does the artifact hold tensors that are not examined?

**Why it matters.** "Nothing found" must not mean "not looked at". A tensor of a kind that no reader knows – a
new adapter method, a quantised format, a stray buffer – can carry a change that every other rule passes by.

**Statistic.** The list of tensors that could not be turned into a change of the model. If there are any the
answer is NOT_SUPPORTED, never clean, and a policy that requires this rule is inconclusive. Weights beside
those that a loader takes by default (copies in other formats) are listed as not looked at. Changes that are
known approximately are counted: int8 against floats, to within a step of the grid, and parts of a method that
need the base where there is none.

**False positives.** Tensors that do nothing (rotary tables, position ids) are recognised and not listed.

**Evasions.** None: what is not read is listed by exclusion.

**Cost.** None beyond the names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ftsec_audit.artifact import ArtifactKind
from ftsec_audit.contracts import Measurements, WeightDetector
from ftsec_audit.types import Evidence, Location, NotLookedAt, Observation, Rule, Severity

if TYPE_CHECKING:
    from ftsec_audit.calibration.bank import Calibration
    from ftsec_audit.weights.delta import Delta

UNREAD_TENSORS = Rule(
    id="FTA107",
    name="unread-tensors",
    question="Does the artifact hold tensors that are not examined?",
    severity=Severity.MEDIUM,
    remediation="Convert the artifact to a supported method or dtype, or examine the listed tensors by hand.",
)


@dataclass(frozen=True, kw_only=True)
class UnreadTensors(WeightDetector):
    rules = (UNREAD_TENSORS,)
    version = 2

    shown: int = 20
    """How many tensors are listed one by one."""

    def measure(self, delta: Delta) -> Mapping[str, float | list[float]]:
        from ftsec_audit.weights.delta import DeltaKind

        if delta.kind is DeltaKind.UNREADABLE:
            return {"is_unread": 1.0}
        return {"is_approximate": 1.0} if delta.approximation else {}

    def judge(self, table: Measurements, calibration: Calibration) -> Iterator[Observation]:
        if table.subject.artifact.kind is ArtifactKind.FILES:
            yield UNREAD_TENSORS.not_applicable("no model weights were recognised")
            return
        for path in table.subject.artifact.unexamined:
            yield NotLookedAt(what=path, reason="further weights beside those that a loader would take")
        unread = [module for module in table.modules if module.values.get("is_unread")]
        if not unread:
            approximate = len(table.column("is_approximate"))
            yield UNREAD_TENSORS.not_detected(
                f"all {len(table.modules)} modules were read"
                + (f", {approximate} of them approximately" if approximate else "")
            )
            return
        yield replace(
            UNREAD_TENSORS.not_supported(
                f"{len(unread)} of {len(table.modules)} tensors are of a kind that is not read, "
                f"first {unread[0].name}"
            ),
            evidence=tuple(
                Evidence(
                    message=f"not examined, shape {'×'.join(map(str, module.shape))}",
                    location=Location(tensor=module.name),
                )
                for module in unread[: self.shown]
            ),
        )
        yield NotLookedAt(
            what=f"{len(unread)} tensors", reason="of a kind that no reader knows", incomplete=True
        )
