"""Where the spectrum of a change falls down to what rounding alone leaves: the rank of a merged update.

Of a matrix ΔW = BA + E with E from rounding, r rows in general position show the rank as well as all do, so
evenly spaced ones are read and their spectrum is taken exactly. E is no guess: an entry w saved with p
significant bits is off by at most half a unit in its last place, 2^(⌊log₂|w|⌋ − p), and independent errors
have their singular values below the Marchenko–Pastur edge.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ftsec_audit.weights.delta import Delta
from ftsec_audit.weights.linalg import marchenko_pastur_edge

_FORMATS = ((torch.bfloat16, 8), (torch.float16, 11), (torch.float32, 24))
"""Storage formats from coarse to fine, and their significant bits."""


_MOST_ELEMENTS = 1 << 22
"""Elements of either side that are read: 16 MB of float32."""
_COLUMNS = 1 << 11
"""Columns that are in float64 at once."""
_SLACK = 3.0
"""Edges up to which what follows a cliff is rounding: errors of small changes are not independent."""
_GRAM_FLOOR = 1e-6
"""Share of the largest singular value below which the Gram matrix shows its own rounding."""


@dataclass(frozen=True, kw_only=True)
class RankCliff:
    """The spectrum of some rows of a change against the edge of rounding noise."""

    rank: int
    """Directions before the cliff; 0 where none stands above the edge, `rows` where they have no end."""
    ratio: float
    """The last singular value before the cliff by the first after it; inf where that is 0."""
    held: float
    """Share of the energy before the cliff, 0..1."""
    limit: float
    """‖ΔW‖/‖W‖ up to which a change of rank one is lost in the rounding."""
    rows: int
    """How many were read; ranks up to half of them can be told."""


def rank_cliff(delta: Delta, *, sampled: int) -> RankCliff:
    """From at most `sampled` evenly spaced rows of a finite DENSE change; raises what reading raises."""
    height = min(delta.shape)  # no orientation has fewer rows
    sampled = max(2, min(sampled, _MOST_ELEMENTS // max(delta.shape)))
    after, before = delta.stored_rows(range(0, height, math.ceil(height / sampled)))
    assert before is not None
    sigma, edge = _spectrum(after, before), _noise_edge(after)
    energies = sigma.square()
    rank, ratio = _cliff(sigma, edge)
    return RankCliff(
        rank=rank,
        ratio=ratio,
        held=float(energies[:rank].sum() / energies.sum().clamp(min=1e-300)),
        limit=_SLACK * edge / max(float(before.norm()), 1e-300),
        rows=len(sigma),
    )


def _cliff(sigma: Tensor, edge: float) -> tuple[int, float]:
    """Rank and ratio at the steepest step down to what can be rounding."""
    noise = max(_SLACK * edge, _GRAM_FLOOR * float(sigma[0]))
    if float(sigma[0]) <= noise:
        return 0, 0.0
    half = len(sigma) // 2
    before, after = sigma[:half], sigma[1 : half + 1]
    ratios = torch.where(after <= noise, before / after.clamp(min=1e-300), 0.0)
    if not bool(ratios.any()):
        return len(sigma), 0.0
    place = int(ratios.argmax())
    return place + 1, float(ratios[place]) if float(after[place]) > 0 else math.inf


def _spectrum(after: Tensor, before: Tensor) -> Tensor:
    """Singular values of the difference, descending, from the Gram matrix of its rows."""
    gram = torch.zeros(len(after), len(after), dtype=torch.float64)
    for new, old in zip(after.split(_COLUMNS, dim=1), before.split(_COLUMNS, dim=1), strict=True):
        change = new.double() - old.double()
        gram += change @ change.mT
    spectrum: Tensor = torch.linalg.eigvalsh(gram).flip(0).clamp(min=0).sqrt()
    return spectrum


def _noise_edge(saved: Tensor) -> float:
    """The largest singular value that rounding to the format of these values leaves (Marchenko–Pastur)."""
    bits = next((bits for dtype, bits in _FORMATS if bool((saved.to(dtype).float() == saved).all())), 24)
    _, exponents = torch.frexp(saved)  # |w| in [2^(e−1), 2^e)
    variance = float(torch.exp2(2.0 * (exponents - bits).float()).mean()) / 12
    return marchenko_pastur_edge(saved.shape[0], saved.shape[1], math.sqrt(variance))
