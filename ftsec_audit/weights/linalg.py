"""Textbook statistics of spectra, vectors and subspaces.

Spectra are 1-d tensors of singular values, descending, non-negative. Every statistic here is invariant
to scaling its argument, except the Marchenko–Pastur edge. An all-zero or empty argument has no shape
to speak of: the answer is then 0.0; NaN in gives NaN out.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def stable_rank(singular_values: Tensor) -> float:
    """‖W‖²_F / σ₁²: how many directions carry the energy; 1 for rank one, r for a flat spectrum."""
    return _ratio(_energy(singular_values), float(singular_values.double().max().square()))


def top_energy_share(singular_values: Tensor) -> float:
    """σ₁² / Σσ², the reciprocal of the stable rank."""
    return _ratio(float(singular_values.double().max().square()), _energy(singular_values))


def spectral_entropy(singular_values: Tensor) -> float:
    """Shannon entropy in nats of σ/Σσ; ln r for a flat spectrum."""
    weights = singular_values.double()
    total = float(weights.sum())
    if total == 0:
        return 0.0
    return float(torch.special.entr(weights / total).sum())


def effective_rank(singular_values: Tensor) -> float:
    """exp(spectral entropy) (Roy & Vetterli, EUSIPCO 2007); 0 for the zero matrix."""
    return math.exp(spectral_entropy(singular_values)) if bool(singular_values.any()) else 0.0


def participation_ratio(singular_values: Tensor) -> float:
    """(Σσ²)² / Σσ⁴: like the stable rank, but every direction has a say."""
    energy = singular_values.double() / _safe_max(singular_values)
    energy = energy.square()
    return _ratio(float(energy.sum()) ** 2, float(energy.square().sum()))


def gini(values: Tensor) -> float:
    """Gini coefficient of non-negative values: 0 when all are equal, (n−1)/n when one holds everything."""
    ordered = values.double().sort().values
    n = ordered.numel()
    ranks = torch.arange(1, n + 1, dtype=torch.float64)
    total = float(ordered.sum())
    return _ratio(float(((2 * ranks - n - 1) * ordered).sum()), n * total)


def hoyer_sparsity(values: Tensor) -> float:
    """(√n − ‖x‖₁/‖x‖₂) / (√n − 1): 0 when all are equal in size, 1 when one is non-zero (Hoyer 2004)."""
    n = values.numel()
    if n < 2 or not bool(values.any()):
        return 0.0
    scaled = values.double() / _safe_max(values.abs())
    ratio = float(scaled.abs().sum()) / float(scaled.norm())
    return (math.sqrt(n) - ratio) / (math.sqrt(n) - 1)


def kurtosis(values: Tensor) -> float:
    """n·Σx⁴ / (Σx²)², not centred, not excess: 3 for Gaussian noise about zero, 1 for ±c."""
    squares = (values.double() / _safe_max(values.abs())).square()
    return _ratio(values.numel() * float(squares.square().sum()), float(squares.sum()) ** 2)


def principal_cosines(first: Tensor, second: Tensor) -> Tensor:
    """Cosines of the principal angles between the column spaces of two (d, k) matrices, descending.

    The columns need not be orthonormal but must be independent (Björck & Golub 1973).
    """
    q_first = torch.linalg.qr(first.double()).Q
    q_second = torch.linalg.qr(second.double()).Q
    cosines: Tensor = torch.linalg.svdvals(q_first.mT @ q_second)
    return cosines.clamp(max=1.0)


def marchenko_pastur_edge(rows: int, columns: int, sigma: float) -> float:
    """Largest singular value expected of a rows × columns matrix of independent noise of deviation sigma.

    σ(√rows + √columns): the upper edge of the Marchenko–Pastur bulk; what exceeds it is not noise.
    """
    return sigma * (math.sqrt(rows) + math.sqrt(columns))


def _energy(singular_values: Tensor) -> float:
    return float(singular_values.double().square().sum())


def _safe_max(values: Tensor) -> float:
    """The largest value, or 1 where dividing by it would make no sense."""
    largest = float(values.double().max()) if values.numel() else 0.0
    return largest if largest != 0 else 1.0


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator != 0 else 0.0
