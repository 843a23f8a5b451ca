"""The report as tags of a registered model's version: what a deployment asks before it loads the model."""

from __future__ import annotations

from ftsec_audit.report.escape import visible
from ftsec_audit.types import Report

PREFIX = "ftsec_audit."
_MAX_VALUE = 5_000  # characters; what every registry accepts


def tags(report: Report, *, at: str) -> dict[str, str]:
    """Tag → value; `at` is when the policy was applied, as RFC 3339 in UTC."""
    decision = report.decision
    values = {
        "verdict": report.verdict,
        "policy": decision.policy,
        "policy_digest": decision.policy_digest,
        "profile": report.profile,
        "detected": ", ".join(dict.fromkeys(finding.rule for finding in report.detected())),
        "reasons": "\n".join(decision.reasons),
        "artifact_digest": report.artifact.digest,
        "base": report.base.resolved if report.base else "",
        "tool_version": report.tool_version,
        "judged_at": at,
    }
    return {f"{PREFIX}{key}": _shown(value) for key, value in values.items()}


def _shown(value: str) -> str:
    return "\n".join(visible(line, _MAX_VALUE) for line in value.splitlines())[:_MAX_VALUE]
