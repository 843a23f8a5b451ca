"""FTA304 trigger-candidates: which tokens does the update answer most?

A ranking and never a verdict: the rule answers NOT_DETECTED, and its top tokens become leads for the probes.

**Why an attacker causes it.** A trigger of one token has to be told from all other tokens where it enters:
the keys and values of the first layer are where a fine-tune that wants to notice it changes most for it.

**Statistic.** For a changed matrix of the lowest changed layer, x_t = what it receives when token t is the
whole text (in the first layer's attention: the normalised embedding; where positions are learned, at their
mean), and its response ρ_t = ‖ΔW(x_t − x̄)‖ from the leading `directions` singular directions of ΔW, divided
by the root mean square of ρ over the vocabulary; what the update does to all tokens alike, ΔW x̄, tells
none from the others. Where queries, keys and values are one matrix, ρ is the mean of those of its keys and
of its values. A token's score is the mean over the keys and values of that layer, or over all its measured
matrices where neither changed. Beside it z, the robust z-score of log ρ over the vocabulary.

**Sources.** Ranking tokens by weights first and testing them after is cheaper than a search by gradients;
what a layer does to single tokens is the logit lens turned round (arXiv:2303.08112).

**What else was tried.** Queries as well, ΔW x_t with its mean, averages over all layers, writers read
through the unembedding, ρ divided by ‖W x_t‖ and first directions alone rank the trigger worse.

**False positives.** None as findings. As leads: a rare word that the training data held for any other reason
ranks as high as a trigger.

**Evasions.** Triggers of several common tokens, phrases and topics: none of their tokens is answered more
than others. Updates of later layers only, unless the model is small.

**Cost.** One product of the embedding with `directions` columns for each key and value matrix of the first
layer; other matrices only where passing the vocabulary to them takes less than `work` multiplications.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from detectors.edit_tokens import NamedToken, Spelling
from ftsec_audit.artifact import ArtifactKind
from ftsec_audit.contracts import Measurements, WeightDetector
from ftsec_audit.errors import Unsupported
from ftsec_audit.formats.token_text import plain
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

TRIGGER_CANDIDATES = Rule(
    id="FTA304",
    name="trigger-candidates",
    question="Which tokens does the update answer most, and are therefore worth trying as triggers?",
    severity=Severity.INFO,
    remediation="Nothing by itself: the probes try these tokens (`--profile deep`).",
    needs_base=True,
)
_KEYS_AND_VALUES = frozenset(
    {"k_proj", "v_proj", "key", "value", "k_lin", "v_lin", "kv_proj"}
    | {"c_attn", "query_key_value", "qkv_proj", "Wqkv", "W_pack"}
)
_ROUNDING = 1e-5
"""Share of what is done to all tokens alike below which differences between them are rounding."""
_WRITERS = frozenset({"o_proj", "out_proj", "out_lin", "dense", "c_proj"})


@dataclass(frozen=True, kw_only=True)
class TriggerCandidates(WeightDetector):
    rules = (TRIGGER_CANDIDATES,)
    profile = Profile.STANDARD

    directions: int = 16
    """Leading singular directions of ΔW that count."""
    kept: int = 256
    """Tokens kept of each matrix; those below count as the least of them."""
    leads: int = 50
    shown: int = 5
    work: float = 5e10
    """Multiplications up to which the vocabulary is passed through lower layers: about a second."""

    def measure(self, delta: Delta) -> Mapping[str, float | list[float]]:
        """The tokens with the largest responses, relative to the vocabulary's root mean square."""
        from ftsec_audit.weights.delta import DeltaKind

        if delta.tokens is None or delta.layer is None or len(delta.shape) != 2:
            return {}
        if delta.kind not in (DeltaKind.LOW_RANK, DeltaKind.DENSE) or not delta.finite() or delta.is_zero():
            return {}
        try:
            relative = self._responses(delta)
        except Unsupported:
            return {}
        return {} if relative is None else self._largest(relative)

    def _responses(self, delta: Delta) -> Tensor | None:
        """‖ΔW(x_t − x̄)‖ of every token relative to the root mean square, float64 (|V|,).

        None where it would cost too much.
        """
        import torch

        from ftsec_audit.weights.fused import keys_and_values
        from ftsec_audit.weights.token_pass import TokenPass

        assert delta.tokens is not None
        at_entrance = delta.layer == 0 and category_of(delta.name) is Category.ATTENTION
        at_entrance = at_entrance and delta.role.rsplit(".", 1)[-1] not in _WRITERS
        if not at_entrance and self._work(delta) > self.work:
            return None
        sigma, (writers, readers) = delta.singular_values(), delta.singular_vectors()
        count = min(self.directions, len(sigma), readers.shape[1])
        written = (writers[:, :count] * sigma[:count]).double()
        parts = keys_and_values(delta.name, delta.shape[0], delta.tokens.weights.config)
        # ‖part·Vᵀx‖ = ‖RVᵀx‖ with part = QR; of the whole, R is the diagonal of the singular values.
        roots = [torch.linalg.qr(written[runs.outputs()], mode="r").R for runs in parts]
        roots = roots or [sigma[:count].double().diag()]
        weighted = torch.cat([readers[:, :count].double() @ root.mT for root in roots], dim=1).float()
        try:
            products = TokenPass(delta.tokens, at=None).along(delta.name, weighted)
        except Unsupported:
            if not at_entrance:
                raise
            # An architecture whose layers are not known: its embeddings and norms are like all others.
            products = delta.tokens.along(delta.name, weighted)
        relative = []
        # Tokens whose embeddings are not numbers are answered by nothing.
        for whole in products.nan_to_num(nan=0.0).split([len(root) for root in roots], dim=1):
            lengths = (whole - whole.mean(dim=0)).norm(dim=1).double()
            if float(lengths.norm()) > _ROUNDING * float(whole.norm()):
                relative.append(lengths / lengths.square().mean().sqrt())
        return torch.stack(relative).mean(dim=0) if relative else None

    def _work(self, delta: Delta) -> float:
        """Multiplications that take the whole vocabulary to the input of this matrix, at most."""
        from ftsec_audit.weights.naming import layer_of

        assert delta.tokens is not None and delta.layer is not None
        layers = ((layer_of(name), entry) for name, entry in delta.tokens.weights.index.items())
        values = sum(entry.numel for n, entry in layers if n is not None and n <= delta.layer)
        return float(values) * delta.tokens.embedding.shape[0]

    def _largest(self, relative: Tensor) -> dict[str, float | list[float]]:
        if not bool(relative.isfinite().all()):
            return {}
        logs = relative.clamp(min=1e-9).log()
        median = float(logs.median())
        spread = 1.4826 * float((logs - median).abs().median())
        count = min(self.kept, len(relative))
        kept = relative.topk(count).indices.sort().values  # by id: near ties must not reorder a measurement
        return {
            "response_tokens": [float(index) for index in kept.tolist()],
            "response_sizes": relative[kept].tolist(),
            "response_log_median": median,
            "response_log_spread": spread,
        }

    def judge(self, table: Measurements, calibration: Calibration) -> Iterator[Observation]:
        subject = table.subject
        if subject.artifact.kind is ArtifactKind.FILES:
            yield TRIGGER_CANDIDATES.not_applicable("no model weights were recognised")
            return
        if subject.base is None:
            yield TRIGGER_CANDIDATES.not_supported(subject.base_reason or "no base")
            return
        modules = _entrance(table.modules)
        if not modules:
            yield TRIGGER_CANDIDATES.not_applicable(
                "no changed matrix whose input from single tokens is known at little cost"
            )
            return
        ranked = _ranked(modules)
        spelling = Spelling.of(subject)
        tokens = [token for token in (_named(spelling, *entry) for entry in ranked) if token.text.strip()]
        tokens = tokens[: self.leads]
        yield self._answer(modules, tokens)
        for rank, token in enumerate(tokens, 1):
            yield _lead(modules, token, rank)

    def _answer(self, modules: Sequence[ModuleMeasurement], tokens: Sequence[NamedToken]) -> Observation:
        first = ", ".join(repr(token.text) for token in tokens[: self.shown])
        return TRIGGER_CANDIDATES.not_detected(
            f"a ranking, no verdict: answered most are {first or 'tokens without a spelling'}",
            confidence=Confidence.LOW,
            evidence=[
                Evidence(
                    message=f"‖ΔW(x − x̄)‖ is {token.score:.1f} times its root mean square over the "
                    f"vocabulary (robust z {_z(modules, token.id):.1f})",
                    statistic="relative response",
                    value=token.score,
                    location=Location(tensor=modules[0].name),
                    excerpt=token.text,
                )
                for token in tokens[: self.shown]
            ],
        )


def responses(modules: Sequence[ModuleMeasurement]) -> list[tuple[int, float]]:
    """(token id, mean relative response), largest first; empty where none was measured."""
    entrance = _entrance(modules)
    return _ranked(entrance) if entrance else []


def _entrance(modules: Sequence[ModuleMeasurement]) -> list[ModuleMeasurement]:
    """The measured matrices of the lowest layer: its keys and values where these changed, else all."""
    measured = [module for module in modules if "response_tokens" in module.values]
    lowest = min((module.layer or 0 for module in measured), default=0)
    measured = [module for module in measured if (module.layer or 0) == lowest]
    return [module for module in measured if module.role in _KEYS_AND_VALUES] or measured


def _ranked(modules: Sequence[ModuleMeasurement]) -> list[tuple[int, float]]:
    """(id, mean relative response), largest first; ties go to the lower id."""
    sizes = [_sizes(module) for module in modules]
    floors = [min(found.values(), default=0.0) for found in sizes]
    ids = {id for found in sizes for id in found}
    means = {
        id: sum(found.get(id, floor) for found, floor in zip(sizes, floors, strict=True)) / len(sizes)
        for id in ids
    }
    return sorted(means.items(), key=lambda entry: (-entry[1], entry[0]))


def _sizes(module: ModuleMeasurement) -> dict[int, float]:
    tokens, sizes = module.values["response_tokens"], module.values["response_sizes"]
    assert isinstance(tokens, list) and isinstance(sizes, list)
    return dict(zip(map(int, tokens), sizes, strict=True))


def _z(modules: Sequence[ModuleMeasurement], id: int) -> float:
    """Mean robust z of log ρ over the modules that kept the token."""
    found = []
    for module in modules:
        median, spread = module.values["response_log_median"], module.values["response_log_spread"]
        size = _sizes(module).get(id)
        if size and isinstance(median, float) and isinstance(spread, float) and spread > 0:
            found.append((math.log(size) - median) / spread)
    return sum(found) / len(found) if found else 0.0


def _named(spelling: Spelling, id: int, score: float) -> NamedToken:
    text = spelling.vocabulary.strings.get(id, "")
    return NamedToken(id, plain(text, byte_level=spelling.byte_level), score)


def _lead(modules: Sequence[ModuleMeasurement], token: NamedToken, rank: int) -> Lead:
    lead = token.lead("token", modules[0].name, TRIGGER_CANDIDATES.id)
    return replace(lead, details={**lead.details, "rank": rank, "z": round(_z(modules, token.id), 2)})
