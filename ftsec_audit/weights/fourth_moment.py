"""Kurtosis of the entries of ΔW = UΣVᵀ without forming them: exactly at low rank, closely above.

Exactly: with bᵢ and aⱼ the rows of UΣ and V, (bᵢ·aⱼ)² = ⟨pᵢ, qⱼ⟩ where p and q are the k(k+1)/2 distinct
products of their entries (off-diagonal ones times √2), so Σᵢⱼ(bᵢ·aⱼ)⁴ = ⟨PᵀP, QᵀQ⟩. The work grows with k⁴.
It is done for ranks up to 4, and for the first k ≤ 4 directions where these hold 99.9 % of the energy, as
they mostly do; the answer is then within 1 % of the whole.

Otherwise, with cⱼ the energy of column j, known exactly for every column, and κⱼ the kurtosis within it,

    kurtosis = columns · Σcⱼ²/(Σcⱼ)² · (mean of κⱼ weighted by cⱼ²),

and only the last mean is estimated, from 8 whole columns taken at equal steps of the cumulative
distribution of cⱼ². Measured against the exact value: standard error 1.5 % on a flat or graded spectrum, 8 %
with an outlying row, 18 % (at worst 34 %) where the entries of the factors themselves are heavy-tailed;
where an outlying row and an outlying column meet, the answer can be several times too low. No random number
is drawn: equal factors give equal answers.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ftsec_audit.weights.factored import CoreSvd, coordinates
from ftsec_audit.weights.factors import Factors
from ftsec_audit.weights.linalg import kurtosis

EXACT_RANK = 4
"""Directions up to which the fourth moment is computed; for more it is estimated."""

_IGNORED_ENERGY = 1e-3
"""Share of the energy that may be left out so as to make do with EXACT_RANK directions."""

_SAMPLED_COLUMNS = 8

_SMALL = 1 << 14
"""Entries up to which ΔW is formed after all: eight columns say little about a small matrix."""


def entry_kurtosis(left: Factors, right: Factors, svd: CoreSvd, vectors: tuple[Tensor, Tensor]) -> Tensor:
    """N·Σx⁴/(Σx²)² over the N entries x of each BA, not centred, not excess: float64 (n,).

    `left` B (n, rows, r), `right` Aᵀ (n, columns, r), `vectors` the first `directions` singular vectors,
    (n, k, rows) and (n, k, columns). 3 for Gaussian entries, 9 for the outer product of two Gaussian vectors.
    0 for a zero update, NaN where a factor is not finite.
    """
    if left.shape[1] * right.shape[1] <= _SMALL:
        pairs = ((left.single(k).double(), right.single(k).double()) for k in range(left.shape[0]))
        return torch.tensor([kurtosis(b @ a.mT) for b, a in pairs], dtype=torch.float64)
    if _directions(svd.sigma) > EXACT_RANK:
        return _estimated(left, right, svd)
    return _exact(svd.sigma, *vectors)


def directions(sigma: Tensor) -> int:
    """How many singular vectors `entry_kurtosis` looks at, as many as the module with most needs; not 0."""
    needed = _directions(sigma)
    return needed if needed <= EXACT_RANK else 1


def _directions(sigma: Tensor) -> int:
    """How many directions have to be considered in the module that needs most of them."""
    rank = sigma.shape[1]
    if rank <= EXACT_RANK:
        return rank
    energies = sigma.square().cumsum(-1)
    rest = energies[:, -1:] - energies[:, :EXACT_RANK]
    enough = (rest <= _IGNORED_ENERGY * energies[:, -1:]) | sigma.isnan()[:, :EXACT_RANK]
    if not bool(enough[:, -1].all()):
        return rank
    return 1 + int((~enough).sum(-1).max())


def _exact(sigma: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """From U (n, k, rows), V (n, k, columns) and σ, of which the first k count."""
    relative = (sigma / torch.where(sigma[:, :1] > 0, sigma[:, :1], 1.0))[:, : u.shape[1]]
    first = _pair_gram(u * (relative * u.shape[2] ** 0.5).float()[:, :, None])
    second = _pair_gram(v * v.shape[2] ** 0.5)
    return _ratio((first * second).sum((-2, -1)), relative.square().sum(-1).square())


def _pair_gram(rows: Tensor) -> Tensor:
    """PᵀP/d with P the products xₖxₗ, k ≤ l, of the d columns of (n, k, d), those with k < l times √2."""
    first, second = torch.triu_indices(rows.shape[1], rows.shape[1])
    weight = torch.where(first == second, 1.0, 2**0.5)[:, None]
    pairs = rows[:, first] * rows[:, second] * weight  # (n, k(k+1)/2, d)
    return (pairs @ pairs.mT).double() / rows.shape[2]


def _estimated(left: Factors, right: Factors, svd: CoreSvd) -> Tensor:
    # Columns of ΔW in the orthonormal basis U, relative to σ₁: their lengths are those of the columns.
    weights = (svd.sigma / svd.sigma[:, :1].clamp(min=1e-300))[:, None, :]
    columns = coordinates(right, svd.readers * weights * right.shape[1] ** 0.5)  # (n, r, columns)
    energies = columns.square().sum(-2).double()
    chosen = _quantiles(energies.square())  # (n, k)
    sample = columns.gather(2, chosen[:, None, :].expand(-1, right.shape[2], -1)).double()
    sample /= energies.gather(1, chosen).sqrt()[:, None, :]
    inside = svd.writers @ (sample * left.shape[1] ** 0.5)  # (n, r, k): B·inside are the columns themselves
    within = torch.zeros(left.shape[0], dtype=torch.float64)
    for some, _, block in left.blocks():
        entries = inside[some].mT.float() @ left.scratch.converted(block, torch.float32).mT
        within[some] += entries.square_().square_().flatten(1).sum(-1)
    within /= left.shape[1] * _SAMPLED_COLUMNS
    return _ratio(right.shape[1] * energies.square().sum(-1) * within, energies.sum(-1).square())


def _quantiles(weights: Tensor) -> Tensor:
    """Indices at the middles of equal steps of the cumulative distribution of each row of weights."""
    cumulative = weights.cumsum(-1)
    steps = (torch.arange(_SAMPLED_COLUMNS, dtype=torch.float64) + 0.5) / _SAMPLED_COLUMNS
    chosen = torch.searchsorted(cumulative, steps * cumulative[:, -1:])
    return chosen.clamp_(max=weights.shape[-1] - 1)


def _ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    return torch.where(denominator == 0, 0.0, numerator / denominator)
