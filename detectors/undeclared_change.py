"""FTA102 undeclared-change: does the adapter change more, or other things, than its configuration declares?

**Why an attacker causes it.** Reviewers read `adapter_config.json`; loaders act on the tensors. A replaced
output head, a bias, an embedding or a low-rank pair on a module that `target_modules` does not name rides
along unseen; a rank that disagrees with the declared one changes the scale α/r at which an update acts.

**Statistic.** Exact comparison of tensors with declarations: modules with a non-zero change that are covered
by none of `target_modules`, `modules_to_save`, `trainable_token_indices` and `bias`; ranks that differ from
`r` and `rank_pattern`. Confidence is HIGH because the facts are exact; severity says what they can mean.

**False positives, and how they are kept low.** Classifier heads (`score`, `classifier`, …) are trained and
saved by PEFT for classification tasks: no detection. PEFT also saves whole embeddings when the vocabulary
was resized or an embedding was targeted (`save_embedding_layers="auto"`), without declaring it: LOW severity
and confidence unless a base shows that existing rows changed (see FTA301). Modules that are declared but
carry no tensor change nothing and are not reported. Ranks of AdaLoRA differ by design.

**Evasions.** Declaring everything: a declared change is not hidden, and other rules look at what it does.

**Cost.** None beyond names and shapes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ftsec_audit.contracts import Measurements, WeightDetector
from ftsec_audit.types import Confidence, Evidence, Finding, Location, ModuleMeasurement, Rule, Severity
from ftsec_audit.weights.naming import has_token_rows

if TYPE_CHECKING:
    from ftsec_audit.artifact import AdapterConfig
    from ftsec_audit.calibration.bank import Calibration
    from ftsec_audit.weights.delta import Delta

UNDECLARED_CHANGE = Rule(
    id="FTA102",
    name="undeclared-change",
    question="Does the adapter change something that its configuration does not declare?",
    severity=Severity.HIGH,
    remediation="Compare the named tensors with adapter_config.json and ask the publisher why they are "
    "there; load the adapter only after removing them.",
)
_HEADS = {"score", "classifier", "pre_classifier", "qa_outputs", "pooler", "cls"}
"""Output layers that PEFT saves whole for the tasks below without being asked."""
_HEAD_TASKS = {"SEQ_CLS", "TOKEN_CLS", "QUESTION_ANS"}
_RANKED = {"lora", "rslora", "dora"}


@dataclass(frozen=True, kw_only=True)
class UndeclaredChange(WeightDetector):
    rules = (UNDECLARED_CHANGE,)

    shown: int = 20
    """How many modules are listed one by one."""

    def measure(self, delta: Delta) -> Mapping[str, float | list[float]]:
        """Whether the change is declared, acts, and replaces a whole tensor; its rank if it has one."""
        from ftsec_audit.weights.delta import DeltaKind

        values = {
            "is_declared": float(delta.declared),
            "is_replacement": float(delta.kind in (DeltaKind.FULL, DeltaKind.DENSE) and delta.rank is None),
            "is_compared": float(delta.kind is DeltaKind.DENSE),
            "acts": float(_acts(delta)),
        }
        return values | ({"rank": float(delta.rank)} if delta.rank is not None else {})

    def judge(self, table: Measurements, calibration: Calibration) -> Iterator[Finding]:
        adapter = table.subject.artifact.adapter
        if adapter is None:
            yield UNDECLARED_CHANGE.not_applicable("not an adapter: nothing is declared")
        elif not adapter.raw:
            yield UNDECLARED_CHANGE.not_supported(
                "no adapter_config.json: nothing is declared, nothing can differ"
            )
        else:
            yield self._compare(table, adapter)

    def _compare(self, table: Measurements, adapter: AdapterConfig) -> Finding:
        extra = [m for m in table.modules if m.values.get("acts") and not m.values.get("is_declared")]
        expected = [module for module in extra if _saved_by_default(module, adapter)]
        embeddings = [m for m in extra if has_token_rows(m.name) and m.values.get("is_replacement")]
        hidden = [m for m in extra if m not in expected and (m not in embeddings or m.values["is_compared"])]
        ranks = list(_unexpected_ranks(table.modules, adapter))
        if hidden:
            return UNDECLARED_CHANGE.detected(
                f"{len(hidden)} changed modules that adapter_config.json does not declare, "
                f"first {hidden[0].name}",
                confidence=Confidence.HIGH,
                evidence=[*map(_undeclared, hidden[: self.shown]), *ranks[: self.shown]],
            )
        if ranks:
            return UNDECLARED_CHANGE.detected(
                f"{len(ranks)} modules whose rank adapter_config.json does not declare",
                severity=Severity.MEDIUM,
                confidence=Confidence.HIGH,
                evidence=ranks[: self.shown],
            )
        if embeddings:
            return UNDECLARED_CHANGE.detected(
                f"whole embeddings are saved undeclared ({', '.join(m.name for m in embeddings)}), as PEFT "
                "does after a change of vocabulary; without the base it cannot be told which rows changed",
                severity=Severity.LOW,
                confidence=Confidence.LOW,
                evidence=list(map(_undeclared, embeddings[: self.shown])),
            )
        declared = [
            m.name for m in table.modules if m.values.get("is_declared") and m.values["is_replacement"]
        ]
        whole = f"; replaced whole, as declared: {', '.join(declared[: self.shown])}" if declared else ""
        return UNDECLARED_CHANGE.not_detected(f"all changes are declared{whole}")


def _acts(delta: Delta) -> bool:
    if delta.change is None:
        return False
    # Values that are not finite act, in their way; whether they are zero is not a question then.
    return not (delta.finite() and delta.is_zero())


def _saved_by_default(module: ModuleMeasurement, adapter: AdapterConfig) -> bool:
    """A classification head, saved by PEFT because of the task, not because it was declared."""
    return adapter.task in _HEAD_TASKS and bool(_HEADS & set(module.name.split(".")))


def _unexpected_ranks(modules: Sequence[ModuleMeasurement], adapter: AdapterConfig) -> Iterator[Evidence]:
    if adapter.method not in _RANKED:
        return
    for module in modules:
        rank, declared = module.values.get("rank"), _declared_rank(adapter, module.name)
        if isinstance(rank, float) and declared is not None and rank != declared:
            yield Evidence(
                message=f"rank {rank:g} where {declared} is declared: the update acts at another scale α/r",
                statistic="rank",
                value=rank,
                location=Location(tensor=module.name),
            )


def _declared_rank(adapter: AdapterConfig, module: str) -> int | None:
    """The rank of the module's factors; early PEFT stacks those of the parts of a fused projection."""
    rank, parts = adapter.declared_rank(module), adapter.raw.get("enable_lora")
    return rank * max(1, sum(part is True for part in parts)) if rank and isinstance(parts, list) else rank


def _undeclared(module: ModuleMeasurement) -> Evidence:
    what = "a whole tensor is replaced" if module.values.get("is_replacement") else "an update is applied"
    return Evidence(
        message=f"{what} ({'×'.join(map(str, module.shape))}) and neither target_modules, modules_to_save, "
        "trainable_token_indices nor bias declares it",
        location=Location(tensor=module.name),
    )
