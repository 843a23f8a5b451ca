"""Directions of the residual stream in terms of tokens: what a direction writes, and which tokens hold it.

A step along a direction moves the logits of all tokens by the unembedding times the final norm's gain; a
matrix that reads the residual stream meets, at the first layer, the normalised embedding of a token times
the gain of the norm before it. Both are one product with |V| rows, streamed in blocks. Later layers see
embeddings too, with less and less accuracy (logit lens; arXiv:2303.08112).

Only ids come out of here; `detectors.vocabulary` knows how they are spelled, `formats.token_text` what a
spelling looks like and in which script.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ftsec_audit.artifact import ArtifactKind
from ftsec_audit.contracts import Subject
from ftsec_audit.errors import Unsupported
from ftsec_audit.weights.moments import BLOCK_ELEMENTS
from ftsec_audit.weights.named_weights import NamedWeights, model_type
from ftsec_audit.weights.naming import Category, category_of, has_token_rows
from ftsec_audit.weights.stored import StoredTensor

_KEPT = 1 << 23
"""Elements up to which a matrix of token rows stays in memory, as float32: 32 MB."""
_FINAL_NORMS = ("norm", "ln_f", "final_layer_norm", "final_layernorm", "norm_f")
_NORMS_BEFORE = {
    Category.ATTENTION: ("input_layernorm", "ln_1", "attention_norm"),
    Category.MLP: ("pre_feedforward_layernorm", "post_attention_layernorm", "ln_2", "ffn_norm"),
}
_CENTRING_MODELS = frozenset({"gpt2", "gpt_neox", "gptj", "opt", "bloom", "falcon", "phi", "starcoder2"})
"""Models whose norms subtract the mean of the entries first."""
_EPSILON = 1e-12


@dataclass(frozen=True)
class TopTokens:
    """The tokens with the largest scores along one direction, largest first."""

    ids: tuple[int, ...]
    scores: tuple[float, ...]
    """z-scores over the vocabulary, in its standard deviations from its mean."""


class TokenSpace:
    """The vocabulary of one model as two sets of directions. Making one reads nothing.

    Every method raises Unsupported where the model lacks the matrix, or keeps it in a form without real
    numbers, and FormatError or SourceError where reading fails.
    """

    def __init__(self, weights: NamedWeights) -> None:
        self.weights = weights
        self._kept: dict[str, Tensor] = {}

    @classmethod
    def of(cls, subject: Subject) -> TokenSpace:
        """That of the base; of the subject itself where it is a checkpoint without a base."""
        model = subject.base or subject.artifact
        if model.kind is not ArtifactKind.CHECKPOINT:
            raise Unsupported(subject.base_reason or "there is no model whose tokens could be looked at")
        return cls(NamedWeights(model))

    @property
    def width(self) -> int:
        """Length of a direction."""
        return self.embedding.shape[1]

    @cached_property
    def embedding(self) -> StoredTensor:
        """The input embedding, (|V|, width)."""
        return self._token_rows(Category.EMBEDDING)

    @cached_property
    def unembedding(self) -> StoredTensor:
        """The output embedding, (|V|, width): the input's where both are tied."""
        return self._token_rows(Category.UNEMBEDDING)

    @property
    def is_centred(self) -> bool:
        """Whether the model's norms subtract the mean first (LayerNorm), or only scale (RMSNorm)."""
        return model_type(self.weights.config) in _CENTRING_MODELS

    def written(self, directions: Tensor) -> Tensor:
        """z-scores (|V|, k) of the logits that a step along each column of `directions` (width, k) adds.

        The sign counts: what a step along −u raises is what one along u lowers.
        """
        gained = self._centred(self._fitting(directions).mT).mT * self.gain(_FINAL_NORMS)[:, None]
        return standardised(self._products(self.unembedding, gained, unit=False))

    def held(self, directions: Tensor, *, module: str = "") -> Tensor:
        """z-scores (|V|, k) of the normalised embeddings along each column of `directions` (width, k).

        With a `module` that reads the residual stream, the gain of the norm before it is counted in.
        """
        return standardised(self.along(module, directions))

    def along(self, module: str, directions: Tensor) -> Tensor:
        """Products (|V|, k) of the embeddings at length 1, times the gain before `module`, with columns."""
        gained = self._fitting(directions) * self.gain_before(module)[:, None]
        return self._products(self.embedding, gained, unit=True)

    def rows(self) -> Iterator[tuple[int, Tensor]]:
        """(first id, embeddings (k, width) as float32) block by block."""
        yield from self._blocks(self.embedding)

    def gain_before(self, module: str) -> Tensor:
        """The gain (width,) of the norm whose output that module reads; ones where it cannot be told."""
        names = _NORMS_BEFORE.get(category_of(module), ())
        block = module.partition(".mlp.")[0].partition(".self_attn.")[0].partition(".attn.")[0]
        return self.gain(tuple(f"{block}.{name}" for name in names))

    def gain(self, names: tuple[str, ...]) -> Tensor:
        """The weight (width,) of the first of the named norms that is there; ones where none is."""
        for name in names:
            stored = self.weights.find(name)
            if stored is not None and stored.shape == (1, self.width):
                gain = stored.index.read(stored.name).float()
                return gain + 1 if model_type(self.weights.config).startswith("gemma") else gain
        return torch.ones(self.width)

    def _token_rows(self, category: Category) -> StoredTensor:
        found = [m for m, _ in self.weights.modules() if has_token_rows(m) and category_of(m) is category]
        wanted = found or (["lm_head"] if category is Category.UNEMBEDDING else [])
        stored = self.weights.find(wanted[0]) if wanted else None
        if stored is None or len(stored.index[stored.name].shape) != 2 or 0 in stored.shape:
            raise Unsupported(f"the model has no matrix of token rows that is its {category}")
        if not stored.dtype.is_floating_point:
            raise Unsupported(f"the {category} is stored in {stored.dtype}")
        return stored

    def _fitting(self, directions: Tensor) -> Tensor:
        if len(directions) != self.width:
            raise Unsupported(f"a direction of {len(directions)} numbers in a space of {self.width}")
        return directions.float()

    def _products(self, matrix: StoredTensor, directions: Tensor, *, unit: bool) -> Tensor:
        """(|V|, k) of the rows, or of the rows at length 1, with the columns."""
        products = torch.empty(matrix.shape[0], directions.shape[1])
        for start, rows in self._blocks(matrix):
            if unit:
                rows = self._centred(rows)
                rows = rows / rows.norm(dim=1, keepdim=True).clamp(min=_EPSILON)
            products[start : start + len(rows)] = rows @ directions
        return products

    def _blocks(self, matrix: StoredTensor) -> Iterator[tuple[int, Tensor]]:
        rows, columns = matrix.shape
        if rows * columns <= _KEPT:
            if matrix.name not in self._kept:
                self._kept[matrix.name] = matrix.index.read(matrix.name).float()
            yield 0, self._kept[matrix.name]
            return
        start = 0
        for block in matrix.blocks(BLOCK_ELEMENTS):
            yield start, block.float()
            start += len(block)

    def _centred(self, rows: Tensor) -> Tensor:
        return rows - rows.mean(dim=1, keepdim=True) if self.is_centred else rows


def top_tokens(scores: Tensor, count: int) -> list[TopTokens]:
    """For each column of `scores` (|V|, k) its largest; ties go to the lower id, NaN to the end."""
    ordered = scores.nan_to_num(nan=-torch.inf, neginf=-torch.inf).sort(dim=0, descending=True, stable=True)
    pairs = zip(ordered.indices[:count].mT.tolist(), ordered.values[:count].mT.tolist(), strict=True)
    return [TopTokens(tuple(ids), tuple(values)) for ids, values in pairs]


def standardised(products: Tensor) -> Tensor:
    """Each column minus its mean, in its standard deviations; 0 where there is no deviation."""
    centred = products.double() - products.double().mean(dim=0)
    deviation = centred.square().mean(dim=0).sqrt()
    return torch.where(deviation > 0, centred / deviation.clamp(min=1e-300), 0.0 * centred)
