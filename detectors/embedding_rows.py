"""FTA301 few-embedding-rows-changed, FTA302 collinear-rows: were single token rows rewritten?

**Why an attacker causes it.** The cheapest backdoor of all: overwrite the embedding of a rare token with the
direction that makes the model do what is wanted. No training, no data, no other weight changes, and the
model is untouched on every text without the token. Several triggers for one behaviour get the same direction.

**Statistic.** With the base, r_i = ‖E′_i − E_i‖ for every row of the vocabulary that both have, and the same
for the unembedding. FTA301: the number of rows with r_i > 0 is between 1 and `few`. That is an exact fact
no optimiser produces by accident: weight decay and Adam move every row, sparse updates every row of the
data. FTA302: two changed rows, among few, whose differences have |cosine| ≥ `collinear`.
Rows declared by `trainable_token_indices` are known without a base and reported with MEDIUM severity: they
are not hidden.

**Sources.** RIPPLe, arXiv:2004.06660; Embedding Poisoning, arXiv:2103.15543; SEP, arXiv:2509.06338.

**False positives.** New tokens: rows beyond the base's vocabulary, and rows of tokens that the tokenizer
declares as added or special, are trained on purpose and do not count. Trained chat-marker rows that reuse a
reserved token of the base count unless declared.

**Evasions.** Changing all rows a little (the spectrum of the difference shows it), or spreading one trigger
over more than `few` rows.

**Cost.** With a base two embeddings are read, 2·|V|·d values; nothing for adapters without embedding tensors.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from detectors.vocabulary import Vocabulary, plain
from ftsec_audit.contracts import Measurements, WeightDetector
from ftsec_audit.types import (
    Confidence,
    Evidence,
    Finding,
    Lead,
    Location,
    ModuleMeasurement,
    Observation,
    Rule,
    Severity,
)

if TYPE_CHECKING:
    from ftsec_audit.calibration.bank import Calibration
    from ftsec_audit.weights.delta import Delta

FEW_ROWS = Rule(
    id="FTA301",
    name="few-embedding-rows-changed",
    question="Were a few rows of the (un)embedding rewritten while all others stayed as they were?",
    severity=Severity.HIGH,
    remediation="Restore the named rows from the base, or probe the named tokens as triggers before use.",
    needs_base=True,
)
COLLINEAR_ROWS = Rule(
    id="FTA302",
    name="collinear-rows",
    question="Were rows of different tokens moved in one and the same direction?",
    severity=Severity.HIGH,
    remediation="Treat the named tokens as triggers of one behaviour and probe them; restore their rows.",
    needs_base=True,
)


@dataclass(frozen=True, kw_only=True)
class EmbeddingRows(WeightDetector):
    rules = (FEW_ROWS, COLLINEAR_ROWS)

    few: int = 50
    """Most changed rows that count as few."""
    few_share: float = 0.25
    """And the largest share of the vocabulary, for small ones."""
    collinear: float = 0.99
    """Cosine of two row differences from which on they are one direction."""
    shown: int = 10

    def measure(self, delta: Delta) -> Mapping[str, float | list[float]]:
        """How many rows changed, and, when they are few, which, how far, and how alike."""
        from ftsec_audit.weights.delta import DeltaKind

        if not delta.has_token_rows:
            return {}
        if delta.kind in (DeltaKind.FULL, DeltaKind.UNREADABLE):
            return {"rows_not_compared": float(delta.shape[0])}
        if delta.kind not in (DeltaKind.DENSE, DeltaKind.ROWS, DeltaKind.LOW_RANK):
            return {}
        changed = delta.changed_rows()
        count, total = len(changed.indices), delta.shape[0]
        values: dict[str, float | list[float]] = {"changed_rows": float(count)}
        if 0 < count <= min(self.few, self.few_share * max(total, changed.compared)) or delta.row_numbers:
            rows = changed.indices[: self.few].tolist()
            values["changed_row_ids"] = [float(row) for row in rows]
            values["changed_row_norms"] = changed.norms[: self.few].tolist()
            values["rows_are_declared"] = float(delta.row_numbers is not None)
            values |= _nearest(rows, delta) if delta.kind is not DeltaKind.LOW_RANK else {}
        return values

    def judge(self, table: Measurements, calibration: Calibration) -> Iterator[Observation]:
        compared = [module for module in table.modules if "changed_rows" in module.values]
        unknown = [module.name for module in table.modules if "rows_not_compared" in module.values]
        few = [module for module in compared if "changed_row_ids" in module.values]
        if few:
            yield from self._few(few, table)
            return
        if unknown:
            reason = f"{', '.join(unknown)} cannot be compared: {table.subject.base_reason or 'not readable'}"
            yield from (rule.not_supported(reason) for rule in self.rules)
            return
        counts = [f"{m.name}: {m.values['changed_rows']:.0f} of {m.shape[0]} rows changed" for m in compared]
        summary = "; ".join(counts) or "no (un)embedding tensor is changed"
        yield from (rule.not_detected(summary) for rule in self.rules)

    def _few(self, modules: Sequence[ModuleMeasurement], table: Measurements) -> Iterator[Observation]:
        own, base = Vocabulary.of(table.subject.artifact), Vocabulary.of(table.subject.base)
        new = {row for row in own.added if row not in base.strings}
        vocabulary = own.completed_by(base)
        rows = [row for module in modules for row in _rows(module, vocabulary) if row.id not in new]
        if not rows:
            tokens = f"{len(new)} tokens declared as added"
            yield from (rule.not_detected(f"only rows of {tokens} changed") for rule in self.rules)
            return
        names = ", ".join(dict.fromkeys(repr(row.token) for row in rows[: self.shown]))
        yield FEW_ROWS.detected(
            "; ".join(
                f"{module.values['changed_rows']:.0f} of {module.shape[0]} rows of {module.name} changed, "
                "all others are unchanged"
                for module in modules
            )
            + f": {names}",
            severity=Severity.MEDIUM if all(m.values["rows_are_declared"] for m in modules) else None,
            confidence=Confidence.HIGH,
            evidence=[row.evidence() for row in rows[: self.shown]],
        )
        yield self._alike(rows)
        for row in rows:
            if row.id in vocabulary.strings:
                details = {"row": row.id, "tensor": row.module}
                yield Lead(kind="token", value=row.token, score=row.norm, source=FEW_ROWS.id, details=details)

    def _alike(self, rows: Sequence[_Row]) -> Finding:
        alike = [row for row in rows if row.cosine >= self.collinear and not row.is_spelling_of_nearest]
        if not alike:
            largest = max((row.cosine for row in rows), default=0.0)
            return COLLINEAR_ROWS.not_detected(f"largest cosine of two changed rows is {largest:.2f}")
        names = ", ".join(dict.fromkeys(repr(row.token) for row in alike[: self.shown]))
        return COLLINEAR_ROWS.detected(
            f"{len(alike)} rows of different tokens moved in one direction "
            f"(|cosine| ≥ {self.collinear:g}): {names}",
            confidence=Confidence.HIGH,
            evidence=[
                Evidence(
                    message=f"row {row.id} moved as row {row.nearest} did: cosine {row.cosine:.4f}",
                    statistic="cosine of row differences",
                    value=row.cosine,
                    location=Location(tensor=row.module),
                    excerpt=row.token,
                )
                for row in alike[: self.shown]
            ],
        )


@dataclass(frozen=True, kw_only=True)
class _Row:
    """One changed row and the changed row whose difference is most parallel to its own."""

    id: int
    token: str
    module: str
    norm: float
    nearest: int
    nearest_token: str
    cosine: float

    @property
    def is_spelling_of_nearest(self) -> bool:
        """Whether the two tokens differ in case and word boundary only."""
        return plain(self.token) == plain(self.nearest_token)

    def evidence(self) -> Evidence:
        return Evidence(
            message=f"row {self.id} changed by ‖ΔE‖ = {self.norm:.3g}",
            statistic="row change",
            value=self.norm,
            location=Location(tensor=self.module),
            excerpt=self.token,
        )


def _rows(module: ModuleMeasurement, vocabulary: Vocabulary) -> Iterator[_Row]:
    rows, norms = _list(module, "changed_row_ids"), _list(module, "changed_row_norms")
    nearest_rows = _list(module, "nearest_rows") or rows
    cosines = _list(module, "nearest_row_cosines") or [0.0] * len(rows)
    for row, norm, nearest, cosine in zip(rows, norms, nearest_rows, cosines, strict=True):
        yield _Row(
            id=int(row),
            token=vocabulary.name(int(row)),
            module=module.name,
            norm=norm,
            nearest=int(nearest),
            nearest_token=vocabulary.name(int(nearest)),
            cosine=cosine,
        )


def _list(module: ModuleMeasurement, key: str) -> list[float]:
    value = module.values.get(key)
    return value if isinstance(value, list) else []


def _nearest(rows: Sequence[int], delta: Delta) -> dict[str, list[float]]:
    """For each row the other row whose difference is most parallel, and that |cosine|; 0 if alone.

    Without a base the rows themselves are compared: no two tokens share a direction to begin with.
    """
    after, before = delta.rows(rows)
    unit = (after if before is None else after - before).double()
    unit = unit / unit.norm(dim=1, keepdim=True).clamp(min=1e-300)  # (k, d)
    cosines = (unit @ unit.T).abs().nan_to_num(0.0).fill_diagonal_(0.0)  # (k, k)
    largest, index = cosines.max(dim=1)
    return {
        "nearest_rows": [float(rows[i]) for i in index.tolist()],
        "nearest_row_cosines": largest.tolist(),
    }
