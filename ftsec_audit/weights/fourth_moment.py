"""Kurtosis of the entries of ΔW = B·A without forming them: exactly at low rank, from a few columns above.

Exactly: (bᵢ·aⱼ)² = ⟨pᵢ, qⱼ⟩ with p and q the r(r+1)/2 distinct products of the entries of bᵢ and aⱼ
(off-diagonal ones times √2), so Σᵢⱼ(bᵢ·aⱼ)⁴ = ⟨PᵀP, QᵀQ⟩. The work grows with r⁴; at r = 16 it would be
seventy times that of the singular values.

Above rank 4: with cⱼ the energy of column j, which BᵀB gives exactly for every column, and κⱼ the
kurtosis within it,

    kurtosis = columns · Σcⱼ²/(Σcⱼ)² · (mean of κⱼ weighted by cⱼ²),

and only the last mean is estimated, from 8 whole columns taken at equal steps of the cumulative
distribution of cⱼ². Nothing is left to chance for a rank-one update, whose columns are all alike. Measured
against the exact value: standard error 1.5 % on a flat or graded spectrum, 0.02 % near rank one, 8 % with an
outlying row; where an outlying row and an outlying column meet, the answer can be several times too low.
No random number is drawn: equal factors give equal answers.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ftsec_audit.weights.factored import blocks, gram
from ftsec_audit.weights.linalg import kurtosis

EXACT_RANK = 4
"""Up to this rank the fourth moment is computed, above it is estimated."""

_SAMPLED_COLUMNS = 8

_SMALL = 1 << 14
"""Entries up to which ΔW is formed after all: eight columns say little about a small matrix."""


def entry_kurtosis(
    left: Tensor, right: Tensor, left_gram: Tensor, right_gram: Tensor, left_root: Tensor
) -> Tensor:
    """N·Σx⁴/(Σx²)² over the N entries x of each BA, not centred, not excess: float64 (n,).

    `left` (n, rows, r), `right` (n, r, columns), BᵀB, AAᵀ and some M with BᵀB = MMᵀ (n, r, r). 3 for
    Gaussian entries, 9 for the outer product of two Gaussian vectors. 0 for a zero update, NaN where a
    factor is not finite.
    """
    if left.shape[1] * right.shape[2] <= _SMALL:
        products = left.double() @ right.double()
        return torch.tensor([kurtosis(product) for product in products], dtype=torch.float64)
    if left.shape[-1] <= EXACT_RANK:
        return _exact(left, right, left_gram, right_gram)
    return _estimated(left, right, left_root, _typical(left_gram) * _typical(right_gram))


def _exact(left: Tensor, right: Tensor, left_gram: Tensor, right_gram: Tensor) -> Tensor:
    entries = left.shape[1] * right.shape[2]
    left_scale, right_scale = _typical(left_gram), _typical(right_gram)  # so that fourth powers stay in range
    first = gram(_pairs(left.float() / left_scale[:, None, None].float()))
    second = gram(_pairs(right.mT.float() / right_scale[:, None, None].float()))
    energy = (left_gram * right_gram).sum((-2, -1)) / (left_scale * right_scale).square()
    return _ratio(entries * (first * second).sum((-2, -1)), energy.square())


def _pairs(factor: Tensor) -> Tensor:
    """The products xₖxₗ, k ≤ l, of each row of (n, d, r), those with k < l times √2: (n, d, r(r+1)/2)."""
    first, second = torch.triu_indices(factor.shape[-1], factor.shape[-1])
    weight = torch.where(first == second, 1.0, 2**0.5)
    return factor[..., first] * factor[..., second] * weight


def _estimated(left: Tensor, right: Tensor, left_root: Tensor, scale: Tensor) -> Tensor:
    """With `scale` of the size of ‖BA‖, so that fourth powers stay in the range of float32."""
    root = (left_root / scale[:, None, None]).float()
    energies = torch.empty(right.shape[0], right.shape[2])
    products = torch.empty(0)
    for some, columns, block in blocks(right.mT):
        torch.matmul(root[some].mT, block.mT.float(), out=products.resize_(0))
        energies[some, columns] = products.square_().sum(-2)
    weights = energies.double().square_()
    chosen = _quantiles(weights)  # (n, k)
    sample = right.gather(2, chosen[:, None, :].expand(-1, right.shape[1], -1)).double()
    sample /= (energies.gather(1, chosen).double().sqrt() * scale[:, None])[:, None, :]
    sample = sample.mT.float()
    within = torch.zeros(len(left), dtype=torch.float64)
    for some, _, block in blocks(left):
        torch.matmul(
            sample[some], block.mT.float(), out=products.resize_(0)
        )  # (n, k, rows) of columns of length one
        within[some] += products.square_().square_().flatten(1).sum(-1)
    within *= left.shape[1] / _SAMPLED_COLUMNS
    return _ratio(right.shape[2] * weights.sum(-1) * within, energies.sum(-1).double().square())


def _quantiles(weights: Tensor) -> Tensor:
    """Indices at the middles of equal steps of the cumulative distribution of each row of weights."""
    cumulative = weights.cumsum(-1)
    steps = (torch.arange(_SAMPLED_COLUMNS, dtype=torch.float64) + 0.5) / _SAMPLED_COLUMNS
    chosen = torch.searchsorted(cumulative, steps * cumulative[:, -1:])
    return chosen.clamp_(max=weights.shape[-1] - 1)


def _typical(product: Tensor) -> Tensor:
    """Square root of the trace of each Gram matrix, float64 (n,); 1 where the factor is zero."""
    size = product.diagonal(dim1=-2, dim2=-1).sum(-1).sqrt()
    return torch.where(size == 0, 1.0, size)


def _ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    return torch.where(denominator == 0, 0.0, numerator / denominator)
