"""in-toto Statements, version 1: one per line, over the digest of every file of the artifact.

- *Test Result* v0.1: which rules found nothing, which found something, what the policy made of it.
- *Simple Verification Result* v0.2: the properties that were verified, by which policy, and when. It says
  when, so it is only written for a caller who knows: `render(report)` alone has no clock and leaves it out.

A property is claimed only when every file has a digest: whoever admits an artifact by such a statement must
be able to find each of its files among the subjects. Without a single digest there is no statement.

https://github.com/in-toto/attestation/tree/main/spec
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from ftsec_audit.errors import UsageError
from ftsec_audit.report.digests import sha256_of, unknown
from ftsec_audit.report.json import plain
from ftsec_audit.report.phrases import PASS_MEANS
from ftsec_audit.types import Finding, Outcome, Report, Verdict

STATEMENT = "https://in-toto.io/Statement/v1"
TEST_RESULT = "https://in-toto.io/attestation/test-result/v0.1"
VERIFICATION = "https://in-toto.io/attestation/svr/v0.2"

_BLOCKED = re.compile(r"^fail\[\d+\] \(.*\): (\S+) is ")
"""How a policy words that a finding blocks."""


def render(report: Report, *, created: str = "") -> str:
    """The statements as JSON lines; `created` is when the policy was applied, as RFC 3339 in UTC.

    Raises UsageError when no file has a digest.
    """
    lines = (json.dumps(plain(statement)) for statement in statements(report, created=created))
    return "\n".join(lines) + "\n"


def statements(report: Report, *, created: str = "") -> Iterator[dict[str, Any]]:
    """The Test Result and, where a time is given, the Simple Verification Result."""
    yield _statement(report, TEST_RESULT, _test_result(report))
    if created:
        yield _statement(report, VERIFICATION, _verification(report, created))


def _statement(report: Report, predicate_type: str, predicate: dict[str, Any]) -> dict[str, Any]:
    subjects = [
        {"name": file.path, "digest": {"sha256": digest}}
        for file in report.artifact.files
        if (digest := sha256_of(file.digest))
    ]
    if not subjects:
        raise UsageError(
            "an in-toto statement names files by digest, and none is known",
            where=report.artifact.reference,
            hint="scan without --max-bytes, with -f intoto=PATH, which hashes every file",
        )
    return {"_type": STATEMENT, "subject": subjects, "predicateType": predicate_type, "predicate": predicate}


def _test_result(report: Report) -> dict[str, Any]:
    failed = {match[1] for reason in report.decision.reasons if (match := _BLOCKED.match(reason))}
    by_rule: dict[str, list[Finding]] = {}
    for finding in report.findings:
        by_rule.setdefault(finding.rule, []).append(finding)
    warned = [rule for rule, found in by_rule.items() if rule not in failed and any(map(_is_open, found))]
    passed = [
        rule
        for rule, found in by_rule.items()
        if rule not in failed
        and rule not in warned
        and any(finding.outcome is Outcome.NOT_DETECTED for finding in found)
    ]
    result = (
        "FAILED"  # also for INCONCLUSIVE: the predicate knows no third answer, and this one admits nothing
    )
    if report.verdict is Verdict.PASS and not unknown(report.artifact.files):
        result = "WARNED" if warned else "PASSED"
    return {
        "result": result,
        "configuration": [_policy(report)],
        "passedTests": sorted(passed),
        "warnedTests": sorted(warned),
        "failedTests": sorted(failed),
        "ftsecAudit": _extension(report),
    }


def _is_open(finding: Finding) -> bool:
    """Whether there is something to say about this answer: a detection, or none."""
    return finding.outcome is Outcome.DETECTED or not finding.outcome.is_answer


def _verification(report: Report, created: str) -> dict[str, Any]:
    return {
        "verifier": {"id": f"pkg:pypi/ftsec-audit@{report.tool_version}", "policies": [_policy(report)]},
        "timeCreated": created,
        "properties": [] if unknown(report.artifact.files) else list(_properties(report)),
        "ftsecAudit": _extension(report),
    }


def _properties(report: Report) -> Iterator[str]:
    """What was verified: the policy as a whole, and each rule that answered no."""
    if report.verdict is Verdict.PASS:
        yield "FTSEC_AUDIT_POLICY_PASSED"
        yield f"FTSEC_AUDIT_PROFILE_{report.profile.upper()}"
    suspect = {finding.rule for finding in report.findings if _is_open(finding)}
    suspect |= {entry.finding.rule for entry in report.suppressed}
    clean = {finding.rule for finding in report.findings if finding.outcome is Outcome.NOT_DETECTED}
    yield from (f"FTSEC_AUDIT_{rule}_NOT_DETECTED" for rule in sorted(clean - suspect))


def _policy(report: Report) -> dict[str, Any]:
    """The policy as a resource: by name, and by the digest of what it says."""
    decision = report.decision
    policy: dict[str, Any] = {"name": decision.policy, "uri": "urn:ftsec-audit:policy"}
    if digest := sha256_of(decision.policy_digest):
        policy["digest"] = {"sha256": digest}
    return policy


def _extension(report: Report) -> dict[str, Any]:
    """What readers of these predicates skip when they do not know it."""
    return {
        "artifact": report.artifact.resolved,
        "artifactDigest": report.artifact.digest,
        "base": report.base.resolved if report.base else None,
        "profile": report.profile,
        "verdict": report.verdict,
        "meaning": PASS_MEANS,
        "reasons": list(report.decision.reasons),
        "filesWithoutDigest": list(unknown(report.artifact.files)),
    }
