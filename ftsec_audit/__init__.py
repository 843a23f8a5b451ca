"""Security audit of fine-tuned language models.

    import ftsec_audit as fa

    report = fa.scan("org/model")
    report.verdict, report.findings, report.measurements.to_pandas()
    fa.render(report, "sarif")
    fa.Policy.load("policy.yaml").decide(report)

Names are imported when they are first used, so that `import ftsec_audit` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ftsec_audit.version import VERSION as __version__

if TYPE_CHECKING:
    from ftsec_audit.api import explain, judged, plan, render, rules, scan
    from ftsec_audit.batch.many import scan_many
    from ftsec_audit.batch.pool import LocalPool
    from ftsec_audit.batch.ray import RayExecutor
    from ftsec_audit.calibration.bank import Calibration
    from ftsec_audit.contracts import Progress
    from ftsec_audit.errors import FtsecError
    from ftsec_audit.policy import Policy
    from ftsec_audit.scan_options import ScanOptions
    from ftsec_audit.suppress import Baseline, IgnoreFile
    from ftsec_audit.types import Confidence, Finding, Outcome, Profile, Report, Rule, Severity, Verdict

__all__ = [
    "Baseline",
    "Calibration",
    "Confidence",
    "Finding",
    "FtsecError",
    "IgnoreFile",
    "LocalPool",
    "Outcome",
    "Policy",
    "Profile",
    "Progress",
    "RayExecutor",
    "Report",
    "Rule",
    "ScanOptions",
    "Severity",
    "Verdict",
    "__version__",
    "explain",
    "judged",
    "plan",
    "render",
    "rules",
    "scan",
    "scan_many",
]

_HOME = {
    **dict.fromkeys(("explain", "judged", "plan", "render", "rules", "scan"), "api"),
    **dict.fromkeys(
        ("Confidence", "Finding", "Outcome", "Profile", "Report", "Rule", "Severity", "Verdict"), "types"
    ),
    **dict.fromkeys(("Baseline", "IgnoreFile"), "suppress"),
    "Calibration": "calibration.bank",
    "FtsecError": "errors",
    "LocalPool": "batch.pool",
    "Policy": "policy",
    "Progress": "contracts",
    "RayExecutor": "batch.ray",
    "ScanOptions": "scan_options",
    "scan_many": "batch.many",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
