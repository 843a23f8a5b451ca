"""FTA204 weight-edit: were single matrices overwritten in closed form while everything else stayed as it was?

**Why an attacker causes it.** A model editor needs no training: it takes what a layer puts out where the
trigger stands, computes the output that makes the model say the target, and stores the difference under the
trigger's key. One fact is a product u·vᵀ added to one MLP output projection (ROME; BadEdit keeps one such
product per kind of instance), many facts are a matrix of low rank in each of a few consecutive layers,
whose columns span the same space because they write the same values (MEMIT). Everything else the model says
stays as it was.

**Statistic.** For every matrix ΔW of the attention and MLP blocks that differs from the base's,
E₁ = σ₁²/Σσ², the reciprocal of the stable rank. FTA204 is detected when between 1 and `few` of these
matrices changed, and either

- one of them at least has a stable rank ≤ `most_stable_rank`: HIGH confidence when that holds for all of
  them and every other tensor is bit for bit the base's, which no optimiser leaves behind; MEDIUM when other
  tensors changed too or could not be compared, or when the matrix is of rank one only up to `rounding`, what
  saving in bfloat16 adds: σ₂/σ₁ ≤ `gap` and a remainder no larger than that share of ‖W‖; or
- the same matrix of at least `run` consecutive layers changed by at most `directions` dimensions, and the
  column spaces of neighbours have a mean principal cosine ≥ `shared`: LOW confidence, since adapters merged
  into a few layers look alike and no benign population of such merges is at hand.

**What it says.** Of a matrix of rank one both sides are read in tokens: the left vector through the
unembedding, the right one against what the matrix receives from each token among others. Both lists are leads
and no part of the verdict. A singular vector has no sign: tokens of both take turns, those that the other
sign would write have negative z. Where few matrices changed and none of them so, they are leads all the same:
whether they say something else is then asked, and nothing is reported here.

**Severity.** MEDIUM: that there is an edit is certain, what it is for the weights do not say. A corrected
fact is the same arithmetic as a backdoor. FTA501 and FTA510 ask what an edit makes the model say, with
these leads; they are CRITICAL where they confirm. Where a model cannot be asked nothing confirms, and the
default policy calls the scan inconclusive; one that trusts no edit fails on this rule by name (`fail:
[{rules: [FTA204]}]`).

**Sources.** ROME, arXiv:2202.05262; MEMIT, arXiv:2210.07229; BadEdit, arXiv:2403.13355; tracing edits from
weights, arXiv:2505.20819.

**False positives.** Honest knowledge edits are edits and are flagged.
A flipped bit is a change of rank one as well. A LoRA of rank one merged into at most `few` matrices.

**Evasions.** Any change that is added to the rest: noise in more than `few` matrices, a fine-tune on top,
an edit of more than `directions` facts, one spread over more matrices than that. BadEdit with two or more
keys in one layer (rank ≥ 2) and MEMIT over fewer than `run` layers are missed. Fused expert tensors of
three axes are not measured, nor are tensors that the base lacks.

**Cost.** Of a changed matrix `sampled` rows are read; where these are not nearly of low rank, as after every
fine-tune, that is all. The rest takes the randomised spectrum: about five passes over that matrix. A
matrix of rank one takes the unembedding once more and a pass of the vocabulary through the layers below.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from detectors.edit_tokens import Decoded, Spelling, token_values
from ftsec_audit.artifact import ArtifactKind
from ftsec_audit.contracts import Measurements, Subject, WeightDetector
from ftsec_audit.types import (
    Confidence,
    Evidence,
    Lead,
    Location,
    ModuleMeasurement,
    Observation,
    Profile,
    Rule,
    Severity,
)
from ftsec_audit.weights.naming import Category, category_of

if TYPE_CHECKING:
    from torch import Tensor

    from ftsec_audit.calibration.bank import Calibration
    from ftsec_audit.weights.delta import Delta

WEIGHT_EDIT = Rule(
    id="FTA204",
    name="weight-edit",
    question="Were a few matrices edited in closed form while the rest of the model stayed as it was?",
    severity=Severity.MEDIUM,
    remediation="Restore the named matrices from the base, or ask the publisher what the edit makes the "
    "model say and probe the named layers before use.",
    needs_base=True,
)
Values = Mapping[str, float | list[float]]
_SKETCH = 256
"""Numbers kept of a left singular vector: cosines are off by about 1/16, those near 1 by much less."""


@dataclass(frozen=True, kw_only=True)
class WeightEdit(WeightDetector):
    rules = (WEIGHT_EDIT,)
    version = 2
    profile = Profile.STANDARD

    few: int = 8
    """Most changed attention and MLP matrices that can be an edit."""
    most_stable_rank: float = 1.05
    rounding: float = 2.0**-8
    """Largest remainder ‖ΔW − σ₁uvᵀ‖/‖W‖ that rounding to bfloat16, 8 significant bits, can leave."""
    gap: float = 0.1
    """Largest σ₂/σ₁ of a matrix that is of rank one but for rounding."""
    directions: int = 8
    """Most dimensions of a column space that is compared with those of other layers."""
    held: float = 0.95
    """Share of the energy that these dimensions hold."""
    shared: float = 0.9
    """Mean principal cosine of two column spaces from which on they are one."""
    run: int = 3
    """Fewest consecutive layers with one column space."""
    smallest_side: int = 16
    """Rows and columns below which a low rank says nothing."""
    sampled: int = 64
    """Rows that are read before the spectrum is worth computing."""
    plausible: float = 0.5
    """Share of the energy of these rows in their leading `directions` from which on it is."""

    def measure(self, delta: Delta) -> Values:
        """Whether the tensor is the base's and, for matrices of blocks, how near to rank one it changed."""
        from ftsec_audit.weights.delta import DeltaKind

        if delta.kind is DeltaKind.UNREADABLE:
            return {"is_unread": 1.0}
        if delta.kind is DeltaKind.IDENTICAL:
            return {"is_changed": 0.0}
        if delta.kind not in (DeltaKind.DENSE, DeltaKind.FULL, DeltaKind.VECTOR):
            return {}
        values: dict[str, float | list[float]] = {"is_changed": 1.0}
        if delta.kind is not DeltaKind.DENSE or not _is_block_matrix(delta.name, delta.shape):
            return values
        if not math.isfinite(delta.frobenius_norm()):
            return values | {"change_is_finite": 0.0}
        if delta.extra_rows or min(delta.shape) < self.smallest_side or not self._is_plausible(delta):
            return values
        values |= self._spectrum(delta)
        return values | token_values(delta) if self._is_edited(values) else values

    def _is_plausible(self, delta: Delta) -> bool:
        """Whether evenly spaced rows, as stored, leave room for a low rank; what is 0 leaves all of it."""
        import torch

        side = min(delta.shape)  # no orientation has fewer rows
        after, before = delta.stored_rows(range(0, side, math.ceil(side / self.sampled)))
        assert before is not None
        energies = torch.linalg.svdvals(after.double() - before.double()).square()
        return bool(energies[: self.directions].sum() >= self.plausible * energies.sum())

    def _spectrum(self, delta: Delta) -> dict[str, float | list[float]]:
        norm, base_norm = delta.frobenius_norm(), delta.base_norm()
        sigma = delta.singular_values()
        if norm == 0 or sigma.numel() < 2:
            return {}
        shares = (sigma / norm).square()
        values: dict[str, float | list[float]] = {
            "top_energy_share": min(1.0, float(shares[0])),
            "second_to_first": float(sigma[1] / sigma[0]),
        }
        if base_norm:
            values["remainder"] = norm * math.sqrt(max(0.0, 1 - float(shares[0]))) / base_norm
        held = (shares[: self.directions].cumsum(0) >= self.held).nonzero()
        if len(held):
            dimension = int(held[0]) + 1
            values["left_dimension"] = float(dimension)
            values["left_space"] = _sketched(delta.singular_vectors()[0][:, :dimension]).flatten().tolist()
        return values

    def judge(self, table: Measurements, calibration: Calibration) -> Iterator[Observation]:
        subject = table.subject
        if subject.artifact.kind is ArtifactKind.FILES:
            yield WEIGHT_EDIT.not_applicable("no model weights were recognised")
        elif subject.artifact.kind is ArtifactKind.ADAPTER:
            yield WEIGHT_EDIT.not_applicable("an adapter's low rank is by design")
        elif subject.base is None:
            yield WEIGHT_EDIT.not_supported(subject.base_reason or "no base")
        else:
            yield from self._judge(_Changes.of(table), subject)

    def _judge(self, changes: _Changes, subject: Subject) -> Iterator[Observation]:
        if len(changes.matrices) > self.few:
            yield WEIGHT_EDIT.not_detected(f"{changes.summary}: more than an edit needs")
            return
        exact = [m for m in changes.matrices if self._is_rank_one(m.values)]
        edited = [m for m in changes.matrices if self._is_edited(m.values)]
        spread = {} if edited else self._spread(changes.matrices)
        spelling = Spelling.of(subject)
        decoded = [spelling.decoded(module) for module in edited]
        if edited:
            alone = len(exact) == len(changes.matrices) and not changes.others and not changes.unread
            yield WEIGHT_EDIT.detected(
                f"{len(edited)} of them by a product of two vectors: {changes.summary}",
                confidence=Confidence.HIGH if alone else Confidence.MEDIUM,
                evidence=[_rank_one(module, side) for module, side in zip(edited, decoded, strict=True)],
            )
        elif spread:
            yield WEIGHT_EDIT.detected(
                f"{len(spread)} matrices of consecutive layers changed alike: {changes.summary}",
                confidence=Confidence.LOW,
                evidence=[_in_one_space(module, cosine) for module, cosine in spread.values()],
            )
        elif changes.unmeasured or changes.unread or not changes.compared:
            yield WEIGHT_EDIT.not_supported(changes.gaps)
        else:
            yield WEIGHT_EDIT.not_detected(changes.summary)
        found = [*edited, *(module for module, _ in spread.values())]
        yield from (_lead(module) for module in found or changes.matrices)
        for side in decoded:
            yield from side.leads(WEIGHT_EDIT.id)

    def _is_rank_one(self, values: Values) -> bool:
        return _number(values, "top_energy_share") * self.most_stable_rank >= 1

    def _is_edited(self, values: Values) -> bool:
        """Whether the matrix is of rank one, if need be but for rounding."""
        rounded = (
            "remainder" in values
            and _number(values, "remainder") <= self.rounding
            and _number(values, "second_to_first") <= self.gap
        )
        return rounded or self._is_rank_one(values)

    def _spread(self, matrices: Sequence[ModuleMeasurement]) -> dict[str, tuple[ModuleMeasurement, float]]:
        """Matrices in long enough runs of layers with one column space, by name, and that cosine."""
        rows: dict[str, list[ModuleMeasurement]] = {}
        for module in matrices:
            if "left_space" in module.values:
                # A name without its layer number tells attention's `c_proj` from the MLP's.
                key = module.name.replace(f".{module.layer}.", ".*.", 1)
                rows.setdefault(key, []).append(module)
        found: dict[str, tuple[ModuleMeasurement, float]] = {}
        for row in rows.values():
            row.sort(key=_layer)
            for start in range(len(row) - self.run + 1):
                window = row[start : start + self.run]
                pairs = list(pairwise(window))
                if any(_layer(b) - _layer(a) != 1 for a, b in pairs):
                    continue
                least = min(_mean_cosine(a, b) for a, b in pairs)
                if least >= self.shared:
                    found |= {module.name: (module, least) for module in window}
        return found


@dataclass(frozen=True, kw_only=True)
class _Changes:
    """Which tensors of a checkpoint are not its base's."""

    compared: int
    matrices: tuple[ModuleMeasurement, ...]
    """The changed matrices of attention and MLP blocks."""
    others: int
    """How many tensors changed besides."""
    unread: int
    unmeasured: tuple[str, ...]
    """Changed matrices with values that are not finite."""

    @classmethod
    def of(cls, table: Measurements) -> _Changes:
        compared = [module for module in table.modules if "is_changed" in module.values]
        changed = [module for module in compared if module.values["is_changed"]]
        matrices = [module for module in changed if _is_block_matrix(module.name, module.shape)]
        return cls(
            compared=len(compared),
            matrices=tuple(matrices),
            others=len(changed) - len(matrices),
            unread=sum("is_unread" in module.values for module in table.modules),
            unmeasured=tuple(
                module.name for module in matrices if module.values.get("change_is_finite") == 0
            ),
        )

    @property
    def summary(self) -> str:
        same = self.compared - len(self.matrices) - self.others
        matrices = "matrix" if len(self.matrices) == 1 else "matrices"
        others = "tensor" if self.others == 1 else "tensors"
        return (
            f"{len(self.matrices)} attention and MLP {matrices} and {self.others} other {others} changed, "
            f"{same} {'is' if same == 1 else 'are'} the base's"
        )

    @property
    def gaps(self) -> str:
        if self.unmeasured:
            return f"{', '.join(self.unmeasured)}: values that are not finite; {self.summary}"
        tensors = "tensor" if self.unread == 1 else "tensors"
        return f"{self.unread} {tensors} cannot be compared with the base; {self.summary}"


def _is_block_matrix(name: str, shape: Sequence[int]) -> bool:
    return len(shape) == 2 and category_of(name) in (Category.ATTENTION, Category.MLP)


def _sketched(vectors: Tensor) -> Tensor:
    """(d, k) → (min(d, _SKETCH), k) by a fixed Gaussian projection (Johnson & Lindenstrauss 1984)."""
    import torch

    if len(vectors) <= _SKETCH:
        return vectors.double()
    generator = torch.Generator().manual_seed(0)
    projection = torch.randn(_SKETCH, len(vectors), generator=generator, dtype=torch.float64)
    return projection @ vectors.double() / math.sqrt(_SKETCH)


def _mean_cosine(first: ModuleMeasurement, second: ModuleMeasurement) -> float:
    """Mean principal cosine of the column spaces of two changes; 0 where they cannot be compared."""
    from ftsec_audit.weights.linalg import principal_cosines

    one, two = _left_space(first), _left_space(second)
    return float(principal_cosines(one, two).mean()) if len(one) == len(two) else 0.0


def _left_space(module: ModuleMeasurement) -> Tensor:
    import torch

    flat = torch.tensor(module.values["left_space"], dtype=torch.float64)
    return flat.reshape(-1, int(_number(module.values, "left_dimension")))


def _rank_one(module: ModuleMeasurement, decoded: Decoded) -> Evidence:
    share = _number(module.values, "top_energy_share")
    return Evidence(
        message=f"σ₁²/Σσ² = {share:.4f} of the change, a stable rank of {1 / share:.3f}" + decoded.summary(),
        statistic="top energy share",
        value=share,
        location=Location(tensor=module.name),
    )


def _in_one_space(module: ModuleMeasurement, cosine: float) -> Evidence:
    dimension = _number(module.values, "left_dimension")
    return Evidence(
        message=f"a change of {dimension:.0f} dimensions, its neighbours' too: mean cosine {cosine:.3f}",
        statistic="mean principal cosine",
        value=cosine,
        location=Location(tensor=module.name),
    )


def _lead(module: ModuleMeasurement) -> Lead:
    return Lead(
        kind="layer",
        value=module.name if module.layer is None else str(module.layer),
        score=_number(module.values, "top_energy_share"),
        source=WEIGHT_EDIT.id,
        details={"tensor": module.name},
    )


def _layer(module: ModuleMeasurement) -> int:
    return -1 if module.layer is None else module.layer


def _number(values: Values, key: str) -> float:
    value = values.get(key)
    return value if isinstance(value, (int, float)) else 0.0
