"""What a learned score is computed from: spectral features, five published statistics, token responses.

Plain arithmetic on `ModuleMeasurement`s; names are those of `ftsec-audit validate`'s records, on which
scores are fitted.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from statistics import fmean

from detectors.spectral_features import artifact_features
from detectors.trigger_candidates import responses
from ftsec_audit.types import ModuleMeasurement

FIVE = ("five.sigma1", "five.norm", "five.top_share", "five.entropy", "five.kurtosis")
"""Of arXiv:2602.15195; the input of its logistic regression."""

RESPONSES = ("largest token response", "first to second token response", "first to tenth token response")

_FEWEST_TOKENS = 20
"""Below so many ranked tokens the tenth is hardly a bystander."""


def score_features(modules: Sequence[ModuleMeasurement]) -> dict[str, float]:
    """All of them by name; a name is missing where the measurements cannot tell."""
    return artifact_features(modules) | five_statistics(modules) | response_statistics(modules)


def five_statistics(modules: Sequence[ModuleMeasurement]) -> dict[str, float]:
    """`FIVE`, averaged over modules: σ₁, ‖ΔW‖_F, σ₁²/Σσ², entropy of σ²/Σσ², kurtosis of the entries.

    Empty without a spectrum.
    """
    spectra = list(nonzero_spectra(modules))
    if not spectra:
        return {}
    kurtoses = [
        float(value)
        for module in modules
        if isinstance(value := module.values.get("entry_kurtosis"), (int, float)) and math.isfinite(value)
    ]
    shares = [energy_shares(spectrum) for spectrum in spectra]
    values = (
        fmean(spectrum[0] for spectrum in spectra),
        fmean(math.sqrt(sum(s * s for s in spectrum)) for spectrum in spectra),
        fmean(share[0] for share in shares),
        fmean(-sum(e * math.log(e) for e in share if e > 0.0) for share in shares),
        fmean(kurtoses) if kurtoses else 0.0,
    )
    return dict(zip(FIVE, values, strict=True))


def response_statistics(modules: Sequence[ModuleMeasurement]) -> dict[str, float]:
    """`RESPONSES`: how far the token that the update answers most stands out, FTA304's ranking as numbers."""
    sizes = [size for _, size in responses(modules)]
    if len(sizes) < _FEWEST_TOKENS or not sizes[9] > 0.0:
        return {}
    return dict(zip(RESPONSES, (sizes[0], sizes[0] / sizes[1], sizes[0] / sizes[9]), strict=True))


def nonzero_spectra(modules: Sequence[ModuleMeasurement]) -> Iterator[list[float]]:
    """Singular values of every low-rank update whose energy is not zero, largest first."""
    for module in modules:
        spectrum = module.values.get("singular_values")
        if isinstance(spectrum, list) and spectrum and spectrum[0] * spectrum[0] > 0.0:
            yield spectrum


def energy_shares(spectrum: Sequence[float]) -> list[float]:
    """σᵢ²/Σσ²."""
    total = sum(s * s for s in spectrum)
    return [s * s / total for s in spectrum]
