"""Numbers of one report that a score can be made of: what rules rest on, and what others compute.

Each is taken from what was measured anyway, larger being stranger unless said otherwise; none is fitted.
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median

from detectors.rounding_boundary import boundary_mass
from detectors.trigger_candidates import responses
from ftsec_audit.types import Report
from ftsec_audit.validate import spectral_baselines

FIVE = ("five.sigma1", "five.norm", "five.top_share", "five.entropy", "five.kurtosis")
"""Of arXiv:2602.15195; the input of its logistic regression."""

RESPONSES = ("largest token response", "first to second token response", "first to tenth token response")


def statistics(report: Report) -> dict[str, float]:
    """By name; a name is missing where the report cannot tell."""
    found = {f"five.{name}": value for name, value in spectral_baselines.five_statistics(report).items()}
    top = spectral_baselines.top_direction(report)
    if top is not None:
        found["85 % top direction"] = top
    return found | _responses(report) | _ablation(report) | _boundary(report)


def _responses(report: Report) -> dict[str, float]:
    """How far the token that the update answers most stands out: FTA304's ranking read as a score."""
    ranked = responses(report.measurements)
    if len(ranked) < 20:
        return {}
    sizes = [size for _, size in ranked]
    return dict(zip(RESPONSES, (sizes[0], sizes[0] / sizes[1], sizes[0] / sizes[9]), strict=True))


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
