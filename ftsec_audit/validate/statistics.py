"""Numbers of one report that a score can be made of: what rules rest on, and what others compute.

Each is taken from what was measured anyway, larger being stranger unless said otherwise; none is fitted.
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median

from detectors.rounding_boundary import boundary_mass
from detectors.score_features import energy_shares, five_statistics, nonzero_spectra, response_statistics
from ftsec_audit.types import Report


def statistics(report: Report) -> dict[str, float]:
    """By name; a name is missing where the report cannot tell."""
    modules = report.measurements
    found = five_statistics(modules) | response_statistics(modules)
    return found | _top_direction(report) | _ablation(report) | _boundary(report)


def _top_direction(report: Report) -> dict[str, float]:
    """max over modules of σ₁²/Σσ²: the widespread rule alarms above 0.85."""
    shares = [energy_shares(spectrum)[0] for spectrum in nonzero_spectra(report.measurements)]
    return {"85 % top direction": max(shares)} if shares else {}


def _ablation(report: Report) -> dict[str, float]:
    """The number FTA205 compares: median cosine between a writer's change and a removal."""
    values = [v for v in _column(report, "removal").values() if v == v]
    return {"removal of a direction": median(values)} if values else {}


def _boundary(report: Report) -> dict[str, float]:
    """The number FTA207 rests on."""
    mass = boundary_mass(report.measurements)
    return {} if mass is None else {"weights at box edges": mass}


def _column(report: Report, key: str) -> Mapping[str, float]:
    values = {module.name: module.values.get(key) for module in report.measurements}
    return {name: float(value) for name, value in values.items() if isinstance(value, (int, float))}
