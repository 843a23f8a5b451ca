"""What the measurements of a module say, whichever detector made them; None where nothing was measured."""

from __future__ import annotations

import math

from ftsec_audit.types import ModuleMeasurement, Outcome, Report

MAX_VALUES = 64
"""Singular values kept of a spectrum."""


def marked(report: Report) -> frozenset[str]:
    """The tensors that detections point at."""
    return frozenset(
        evidence.location.tensor.removesuffix(".weight")
        for finding in report.findings
        if finding.outcome is Outcome.DETECTED
        for evidence in finding.evidence
        if evidence.location.tensor
    )


def spectrum(module: ModuleMeasurement) -> list[float]:
    """Finite and not negative, largest first; empty when there is none."""
    values = module.values.get("singular_values")
    if not isinstance(values, list):
        return []
    return [value for value in values if math.isfinite(value) and value >= 0][:MAX_VALUES]


def top_share(module: ModuleMeasurement) -> float | None:
    """σ₁²/Σσ²."""
    values = module.values.get("singular_values")
    if not isinstance(values, list) or not values:
        return None
    largest = max(map(abs, values))
    # Divided by the largest first: squares of huge values overflow.
    return 1 / sum((value / largest) ** 2 for value in values) if 0 < largest < math.inf else math.nan


def update_size(module: ModuleMeasurement) -> float | None:
    """‖ΔW‖_F/√(d_out·d_in): the root mean square of the update's entries."""
    values = module.values.get("singular_values")
    if isinstance(values, list):
        return math.hypot(*values) / math.sqrt(max(math.prod(map(float, module.shape)), 1.0))
    logarithm = module.values.get("log_rms_update")
    return math.exp(min(logarithm, 700.0)) if isinstance(logarithm, (int, float)) else None


def kurtosis(module: ModuleMeasurement) -> float | None:
    value = module.values.get("entry_kurtosis")
    return value if isinstance(value, (int, float)) else None
