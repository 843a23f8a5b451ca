"""What others compute from the spectra of an adapter, on the very measurements that the detectors use."""

from __future__ import annotations

import math
from collections.abc import Iterator
from statistics import fmean

from ftsec_audit.types import Report


def top_direction(report: Report) -> float | None:
    """max over modules of σ₁²/Σσ²: the widespread rule alarms above 0.85. None without a spectrum."""
    return max((_energies(spectrum)[0] for spectrum in _spectra(report)), default=None)


def five_statistics(report: Report) -> dict[str, float]:
    """The five of arXiv:2602.15195, averaged over modules; empty without a spectrum.

    σ₁, ‖ΔW‖_F, σ₁²/Σσ², the entropy of σ²/Σσ², and the kurtosis of the entries.
    """
    spectra = list(_spectra(report))
    if not spectra:
        return {}
    kurtoses = [
        float(value)
        for module in report.measurements
        if isinstance(value := module.values.get("entry_kurtosis"), (int, float)) and math.isfinite(value)
    ]
    shares = [_energies(spectrum) for spectrum in spectra]
    return {
        "sigma1": fmean(spectrum[0] for spectrum in spectra),
        "norm": fmean(math.sqrt(sum(s * s for s in spectrum)) for spectrum in spectra),
        "top_share": fmean(share[0] for share in shares),
        "entropy": fmean(-sum(e * math.log(e) for e in share if e > 0.0) for share in shares),
        "kurtosis": fmean(kurtoses) if kurtoses else 0.0,
    }


def _spectra(report: Report) -> Iterator[list[float]]:
    """Singular values of every low-rank update that is not zero, largest first."""
    for module in report.measurements:
        spectrum = module.values.get("singular_values")
        if isinstance(spectrum, list) and spectrum and spectrum[0] > 0.0:
            yield spectrum


def _energies(spectrum: list[float]) -> list[float]:
    total = sum(s * s for s in spectrum)
    return [s * s / total for s in spectrum]
