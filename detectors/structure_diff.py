"""FTA101 wrong-base, FTA105 structure-changed: is this a fine-tune of the base it declares, and of it alone?

**Why an attacker causes it.** Everything that is judged against a base is judged against the wrong thing when
another one is declared: a poisoned model passes for "a fine-tune of" a trusted name. Tensors that the base
does not have (an extra head, a side network, a grafted layer) can carry a payload that a comparison by
name never meets.

**Statistic.** Names and shapes of every tensor of both sides, paired whatever the wrapper, and, for
checkpoints, how far every pair lies apart: ‖W′ − W‖_F/‖W‖_F and, where that is at least `looked_into`,
‖W′ − cW‖_F/‖W′‖_F with the number c that makes it smallest, since a tensor that was multiplied by a number
is still the base's (FTA109 says so). A fused projection (qkv, gate and up) is its parts where the
other side keeps those. FTA101: at least `wrong_share` of the matrices (of all tensors where there are only
vectors: a bias that the base lacks does not make it another model) find no partner of their shape, or the
median distance is at least `unrelated`: two independently trained models of one architecture lie at 1, a
fine-tune far below. FTA105: tensors added, missing or of another shape, beyond those that explain
themselves (heads of a classification task, a tied unembedding, buffers, rows of new tokens).

**False positives.** Upcycled, pruned or merged models do change structure: the finding lists what.
A base on another revision can lack tensors. Packed weights (GPTQ, AWQ, int8, 4-bit and fp8 with scales) are
paired by name alone, FTA107 lists what of them is unread.

**Evasions.** Declaring no base, which leaves the rules without an answer rather than clean.

**Cost.** Headers of both sides; for checkpoints the pass over the values that the diff makes anyway.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from ftsec_audit.artifact import ArtifactKind
from ftsec_audit.contracts import Measurements, WeightDetector
from ftsec_audit.errors import FtsecError
from ftsec_audit.types import Confidence, Evidence, Finding, Location, Rule, Severity
from ftsec_audit.weights.naming import canonical_name, has_token_rows, pairing_key

if TYPE_CHECKING:
    from ftsec_audit.artifact import Artifact
    from ftsec_audit.calibration.bank import Calibration
    from ftsec_audit.weights.delta import Delta

WRONG_BASE = Rule(
    id="FTA101",
    name="wrong-base",
    question="Is the artifact a fine-tune of something else than the base it is compared with?",
    severity=Severity.HIGH,
    remediation="Find out which model this really was tuned from and scan again with `--base`; do not load "
    "an adapter into a base that it was not trained on.",
    needs_base=True,
)
STRUCTURE_CHANGED = Rule(
    id="FTA105",
    name="structure-changed",
    question="Does the artifact have tensors that its base does not explain, or lack tensors of its base?",
    severity=Severity.MEDIUM,
    remediation="Ask what the listed tensors are for, and compare the model code that reads them.",
    needs_base=True,
)
_HEADS = re.compile(r"(?:^|\.)(?:score|classifier|pre_classifier|qa_outputs|pooler|cls|lm_head)(?:\.|$)")
_BUFFERS = re.compile(r"(?:^|\.)(?:inv_freq|position_ids|masked_bias|attn\.bias|embed_positions)(?:\.|$)")


@dataclass(frozen=True, kw_only=True)
class StructureDiff(WeightDetector):
    rules = (WRONG_BASE, STRUCTURE_CHANGED)

    wrong_share: float = 0.5
    """Share of tensors without a partner of their shape from which on the base is another model."""
    unrelated: float = 0.9
    """Median distance from which on two checkpoints are not parent and child."""
    looked_into: float = 0.1
    """‖ΔW‖/‖W‖ from which on it matters whether the tensor is a multiple of the base's."""
    shown: int = 20

    def measure(self, delta: Delta) -> Mapping[str, float | list[float]]:
        """Whether the tensor is an update of one of the base, the same, or how far from it."""
        from ftsec_audit.weights.delta import DeltaKind

        if delta.kind is DeltaKind.IDENTICAL:
            return (
                {"is_identical": 1.0, "relative_change": 0.0, "distance": 0.0}
                if len(delta.shape) > 1
                else {"is_identical": 1.0}
            )
        if delta.rank is not None or delta.kind is DeltaKind.VECTOR:
            return {"is_update": 1.0}
        base_norm = delta.base_norm() if delta.kind is DeltaKind.DENSE and len(delta.shape) > 1 else None
        if not base_norm:
            return {}
        change = delta.frobenius_norm() / base_norm
        nearest = delta.nearest_multiple() if change >= self.looked_into else None
        return {"relative_change": change, "distance": nearest.remainder if nearest else change}

    def judge(self, table: Measurements, calibration: Calibration) -> Iterator[Finding]:
        subject = table.subject
        if subject.artifact.kind is ArtifactKind.FILES:
            yield from (rule.not_applicable("no model weights were recognised") for rule in self.rules)
            return
        if subject.base is None:
            yield from (rule.not_supported(subject.base_reason or "no base") for rule in self.rules)
            return
        try:
            compared = _Compared.of(table, subject.base)
        except FtsecError as error:
            yield from (rule.not_supported(f"tensors cannot be listed: {error}") for rule in self.rules)
            return
        yield self._wrong_base(compared)
        yield self._structure(compared)

    def _wrong_base(self, compared: _Compared) -> Finding:
        facts = compared.evidence(self.shown)
        if compared.strangers >= self.wrong_share:
            return WRONG_BASE.detected(
                f"{len(compared.unmatched)} of {compared.total} tensors have no partner of their shape in "
                f"the base; {compared.summary}",
                confidence=Confidence.HIGH,
                evidence=facts,
            )
        distance = compared.median_distance
        if distance is not None and distance >= self.unrelated:
            return WRONG_BASE.detected(
                f"the median tensor differs from every multiple of the base's by {distance:.2f} of its norm "
                f"(unrelated models: 1); {compared.summary}",
                confidence=Confidence.HIGH,
                evidence=[
                    Evidence(
                        message=f"median ‖W′ − cW‖/‖W′‖ = {distance:.3g}",
                        statistic="median distance",
                        value=distance,
                    )
                ],
            )
        return WRONG_BASE.not_detected(compared.summary)

    def _structure(self, compared: _Compared) -> Finding:
        if not compared.unmatched and not compared.missing:
            return STRUCTURE_CHANGED.not_detected(compared.summary)
        return STRUCTURE_CHANGED.detected(
            f"{len(compared.unmatched)} tensors that the base does not have in this shape, "
            f"{len(compared.missing)} of the base missing; {compared.summary}",
            confidence=Confidence.HIGH,
            evidence=compared.evidence(self.shown),
        )


@dataclass(frozen=True, kw_only=True)
class _Compared:
    """The tensors of a subject against those of its base, by name and shape."""

    matched: int
    strangers: float
    """Share of the matrices without a partner; 1 where there is nothing to pair."""
    unmatched: tuple[str, ...]
    """Tensors of the subject with no partner, or one of another shape, and no reason of their own."""
    missing: tuple[str, ...]
    """Tensors of the base that a checkpoint lacks."""
    packed: int
    """How many of the matched ones are packed on either side, so that their shapes say nothing."""
    identical: int
    distances: tuple[float, ...]
    """Of the matrices of a checkpoint from the base's, 0 where they are bit-identical."""

    @classmethod
    def of(cls, table: Measurements, base: Artifact) -> _Compared:
        base_shapes = _shapes(base)
        if table.subject.artifact.adapter is None:
            shapes = _shapes(table.subject.artifact)
            _divide(shapes, table.subject.artifact, base)
            _divide(base_shapes, base, table.subject.artifact)
            missing = {key for key in base_shapes.keys() - shapes.keys() if not _explained(key)}
        else:
            updates = [module for module in table.modules if "is_update" in module.values]
            shapes = {pairing_key(module.name): _Shape(module.name, module.shape) for module in updates}
            missing = set()
        unmatched = [
            shape
            for key, shape in shapes.items()
            if not _partners(shape, base_shapes.get(key)) and not (key not in base_shapes and _explained(key))
        ]
        matrices = [shape for shape in shapes.values() if len(shape.shape) > 1] or [*shapes.values()]
        return cls(
            matched=len(shapes) - len(unmatched),
            strangers=sum(shape in unmatched for shape in matrices) / len(matrices) if matrices else 1.0,
            unmatched=tuple(shape.name for shape in unmatched),
            missing=tuple(sorted(base_shapes[key].name for key in missing)),
            packed=sum(
                key in base_shapes and not (shape.comparable and base_shapes[key].comparable)
                for key, shape in shapes.items()
            ),
            identical=len(table.column("is_identical")),
            distances=tuple(table.column("distance").values()),
        )

    @property
    def total(self) -> int:
        return self.matched + len(self.unmatched)

    @property
    def median_distance(self) -> float | None:
        return median(self.distances) if self.distances else None

    @property
    def summary(self) -> str:
        packed = f" ({self.packed} of them packed: in name alone)" if self.packed else ""
        return (
            f"{self.matched} tensors match the base in name and shape{packed}, "
            f"{self.identical} are the base's"
        )

    def evidence(self, count: int) -> list[Evidence]:
        named = [*self.unmatched[:count], *self.missing[:count]]
        return [
            Evidence(
                message="not in the base in this shape"
                if i < len(self.unmatched[:count])
                else "only in the base",
                location=Location(tensor=name),
            )
            for i, name in enumerate(named)
        ] or [Evidence(message=self.summary, statistic="matching tensors", value=float(self.matched))]


@dataclass(frozen=True)
class _Shape:
    name: str
    shape: tuple[int, ...]
    comparable: bool = True
    """False for packed weights and whole numbers, whose shape may not be that of the matrix."""


def _shapes(artifact: Artifact) -> dict[str, _Shape]:
    from ftsec_audit.weights.named_weights import NamedWeights

    weights = NamedWeights(artifact)
    entries = {name: weights.index[name] for _, name in weights.modules()}
    shapes = {
        pairing_key(name): _Shape(canonical_name(name), entry.shape, entry.dtype.lstrip("B").startswith("F"))
        for name, entry in entries.items()
    }
    return shapes | {
        pairing_key(packed.module): _Shape(packed.module, weights.index[name].shape, comparable=False)
        for name, packed in weights.packed.items()
    }


def _divide(shapes: dict[str, _Shape], fused: Artifact, split: Artifact) -> None:
    """Put the parts of a fused projection in its place where the other side has them one by one."""
    from ftsec_audit.weights.fused import packed_parts, parts
    from ftsec_audit.weights.named_weights import NamedWeights

    own, other = NamedWeights(fused), NamedWeights(split)
    for name, those in parts(own, other).items():
        del shapes[pairing_key(name)]
        for part in those:
            shapes[pairing_key(part.module)] = _Shape(part.module, part.within.stored_shape)
    for module, names in packed_parts(own, other).items():
        whole = shapes.pop(pairing_key(module))
        shapes |= {pairing_key(name): _Shape(name, whole.shape, comparable=False) for name in names}


def _partners(shape: _Shape, other: _Shape | None) -> bool:
    """Whether two tensors can be the same weight: equal shapes, transposed, or with more or fewer tokens."""
    if other is None:
        return False
    if not (shape.comparable and other.comparable):
        return True
    if has_token_rows(shape.name) and len(shape.shape) == len(other.shape) == 2:
        return shape.shape[1] == other.shape[1]
    return shape.shape in (other.shape, other.shape[::-1])


def _explained(key: str) -> bool:
    """Whether a tensor may be there on one side only: a task's head, a tied unembedding, a buffer."""
    return bool(_HEADS.search(key) or _BUFFERS.search(key))
