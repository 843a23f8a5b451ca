"""What the measurements of a module say, whichever detector made them; None where nothing was measured."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

from ftsec_audit.types import ModuleMeasurement, Outcome, Report

MAX_VALUES = 64
"""Singular values kept of a spectrum."""


@dataclass(frozen=True, kw_only=True)
class Statistic:
    """One number per module, and how it is called in a drawing and in a table."""

    title: str
    symbol: str
    explanation: str
    of: Callable[[ModuleMeasurement], float | None]


def named_by(report: Report) -> dict[str, tuple[str, ...]]:
    """The tensors that detections point at, and the rules that do."""
    rules: dict[str, list[str]] = defaultdict(list)
    for finding in report.findings:
        if finding.outcome is Outcome.DETECTED:
            for evidence in finding.evidence:
                if evidence.location.tensor:
                    rules[evidence.location.tensor.removesuffix(".weight")].append(finding.rule)
    return {tensor: tuple(dict.fromkeys(ids)) for tensor, ids in rules.items()}


def marked(report: Report) -> frozenset[str]:
    """The tensors that detections point at."""
    return frozenset(named_by(report))


def spectrum(module: ModuleMeasurement) -> list[float]:
    """Finite and not negative, largest first; empty when there is none."""
    values = module.values.get("singular_values")
    if not isinstance(values, list):
        return []
    return [value for value in values if math.isfinite(value) and value >= 0][:MAX_VALUES]


def n_values(module: ModuleMeasurement) -> int:
    """How many singular values were measured; 0 without a spectrum."""
    values = module.values.get("singular_values")
    return len(values) if isinstance(values, list) else 0


def norm(module: ModuleMeasurement) -> float:
    """‖ΔW‖_F; NaN where no spectrum was measured."""
    values = module.values.get("singular_values")
    return math.hypot(*values) if isinstance(values, list) else math.nan


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
    if isinstance(module.values.get("singular_values"), list):
        return norm(module) / math.sqrt(max(math.prod(map(float, module.shape)), 1.0))
    logarithm = _scalar(module, "log_rms_update")
    return None if logarithm is None else math.exp(min(logarithm, 700.0))


def _largest(module: ModuleMeasurement) -> float | None:
    return max(spectrum(module), default=None)


def _rank(module: ModuleMeasurement) -> float | None:
    return _scalar(module, "rank") or float(len(spectrum(module))) or None


def _named(key: str) -> Callable[[ModuleMeasurement], float | None]:
    return lambda module: _scalar(module, key)


def _scalar(module: ModuleMeasurement, key: str) -> float | None:
    value = module.values.get(key)
    return float(value) if isinstance(value, (int, float)) else None


DRAWN = (
    Statistic(
        title="Size of the update",
        symbol="RMS of ΔW",
        explanation="root mean square of the entries of ΔW, ‖ΔW‖/√(d_out·d_in)",
        of=update_size,
    ),
    Statistic(
        title="Change relative to the base",
        symbol="‖ΔW‖/‖W‖",
        explanation="‖ΔW‖/‖W‖; 0 for a tensor that is as it was",
        of=_named("relative_change"),
    ),
    Statistic(
        title="Energy in one direction",
        symbol="σ₁²/Σσ²",
        explanation="σ₁²/Σσ², 1 for an update of rank one; ordinary adapters often come close",
        of=top_share,
    ),
    Statistic(
        title="Concentration of the entries",
        symbol="kurtosis",
        explanation="kurtosis of the entries of ΔW; 3 for a Gaussian, large when few carry it all",
        of=_named("entry_kurtosis"),
    ),
)
LISTED = (
    Statistic(title="Rank", symbol="rank", explanation="rank of ΔW", of=_rank),
    Statistic(title="Largest singular value", symbol="σ₁", explanation="of ΔW", of=_largest),
    *DRAWN,
)
