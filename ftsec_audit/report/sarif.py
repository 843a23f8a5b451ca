"""SARIF 2.1.0: one result per rule and file, for code-scanning views and result stores.

An artifact that a list of models names is not part of the repository that is looked at; the line which
pins it is. There, a rule has one result, at that line, and the files of the artifact are related places.

Results are detections only. Code-scanning services show every result as an alert, those of kind `pass`
and suppressed ones included, so clean answers and suppressed findings are counted in the properties of
the run. What could not be answered or was not looked at becomes a notification of the invocation.

Offsets and tensor names are logical locations: the files are binary, and line 1 is only there because
viewers need a line. https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any
from urllib.parse import quote

from ftsec_audit import taxonomy
from ftsec_audit.report import phrases
from ftsec_audit.report.escape import visible
from ftsec_audit.types import (
    Confidence,
    Evidence,
    FileRecord,
    Finding,
    Location,
    Outcome,
    Report,
    Rule,
    Severity,
)

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
MAX_RESULTS = 25_000
"""What code-scanning services accept in one run."""
_MAX_NOTIFICATIONS = 1_000
_MAX_EVIDENCE = 20
"""Pieces of evidence written out per result; the rest is counted."""
_MAX_MESSAGE = 1_000

_LEVEL = {
    Severity.CRITICAL: "error",
    Severity.HIGH: "error",
    Severity.MEDIUM: "warning",
    Severity.LOW: "note",
    Severity.INFO: "note",
}
_SECURITY_SEVERITY = {
    Severity.CRITICAL: "9.5",
    Severity.HIGH: "8.0",
    Severity.MEDIUM: "5.5",
    Severity.LOW: "2.0",
    Severity.INFO: "0.0",
}


def render(report: Report) -> str:
    return json.dumps(log(report), indent=2) + "\n"


def log(report: Report) -> dict[str, Any]:
    """The SARIF log as JSON values."""
    rules = _rules(report)
    positions = {rule.id: index for index, rule in enumerate(rules)}
    results = list(islice(_results(report, positions), MAX_RESULTS))
    return {
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {"driver": _driver(report, rules)},
                "automationDetails": {"id": f"ftsec-audit/{_uri(report.artifact.reference)}/"},
                "invocations": [_invocation(report)],
                "taxonomies": _taxonomies(rules),
                "results": results,
                "columnKind": "unicodeCodePoints",
                "properties": _properties(report),
            }
        ],
    }


def _driver(report: Report, rules: list[Rule]) -> dict[str, Any]:
    names = dict.fromkeys(entry.taxonomy for rule in rules for entry in _references(rule.id))
    return {
        "name": "ftsec-audit",
        "semanticVersion": report.tool_version,
        "supportedTaxonomies": [{"name": name} for name in names],
        "rules": [_descriptor(rule) for rule in rules],
    }


def _rules(report: Report) -> list[Rule]:
    """The rules that results and notifications name, including any the report does not describe."""
    described = {rule.id: rule for rule in report.rules}
    for finding in report.findings:
        described.setdefault(
            finding.rule,
            Rule(
                id=finding.rule,
                name=finding.rule,
                question=f"What does {finding.rule} ask?",
                severity=finding.severity,
                remediation=finding.remediation,
            ),
        )
    return list(described.values())


def _descriptor(rule: Rule) -> dict[str, Any]:
    question, remediation = visible(rule.question), visible(rule.remediation)
    explain = f"ftsec-audit explain {rule.id}"
    references = _references(rule.id)
    return {
        "id": rule.id,
        "name": "".join(part.capitalize() for part in visible(rule.name).split("-")),
        "shortDescription": {"text": question},
        "fullDescription": {"text": f"{question} {remediation}".strip()},
        "help": {
            "text": f"{question}\n\n{remediation}\n\nMore: {explain}",
            "markdown": f"**{question}**\n\n{remediation}\n\nMore: `{explain}`",
        },
        "defaultConfiguration": {"level": _LEVEL[rule.severity]},
        "relationships": [
            {"target": {"id": entry.id, "toolComponent": {"name": entry.taxonomy}}, "kinds": ["relevant"]}
            for entry in references
        ],
        "properties": {
            "tags": ["security", "machine-learning", _family(rule), *(_tag(entry) for entry in references)],
            "security-severity": _SECURITY_SEVERITY[rule.severity],
        },
    }


def _references(rule: str) -> tuple[taxonomy.Reference, ...]:
    try:
        return taxonomy.references(rule)
    except KeyError:  # a third party's rule
        return ()


def _family(rule: Rule) -> str:
    try:
        return rule.family
    except (KeyError, IndexError):
        return "other"


def _tag(entry: taxonomy.Reference) -> str:
    """`external/cwe/cwe-502`, as code-scanning services spell it; the bare id for the others."""
    return f"external/cwe/{entry.id.lower()}" if entry.taxonomy == taxonomy.CWE else entry.id


def _taxonomies(rules: Iterable[Rule]) -> list[dict[str, Any]]:
    entries = dict.fromkeys(entry for rule in rules for entry in _references(rule.id))
    names = dict.fromkeys(entry.taxonomy for entry in entries)
    return [
        {
            "name": name,
            "taxa": [
                {"id": entry.id, "shortDescription": {"text": entry.name}, "helpUri": entry.url}
                for entry in entries
                if entry.taxonomy == name
            ],
        }
        for name in names
    ]


def _results(report: Report, positions: dict[str, int]) -> Iterator[dict[str, Any]]:
    for finding in report.detected():
        places: dict[str, list[Evidence]] = {}
        for evidence in finding.evidence:
            places.setdefault(evidence.location.file, []).append(evidence)
        if report.listed_at is not None:
            yield _at_its_pin(report, finding, report.listed_at, list(places), positions)
            continue
        for file, evidence_there in (places or {"": []}).items():
            yield _result(report, finding, file or _main_file(report), evidence_there, positions)


def _at_its_pin(
    report: Report, finding: Finding, pin: Location, files: list[str], positions: dict[str, int]
) -> dict[str, Any]:
    """One result for all files, shown where the list names the artifact."""
    result = _result(report, finding, "", list(finding.evidence), positions)
    result["locations"][0]["physicalLocation"] = _physical(pin.file, pin.line or 1)
    related = [file for file in files if file][:_MAX_EVIDENCE]
    result["relatedLocations"] = [
        {
            "physicalLocation": _physical(file, 1),
            "message": {"text": f"in {visible(report.artifact.resolved)}"},
        }
        for file in related
    ]
    return result


def _physical(file: str, line: int) -> dict[str, Any]:
    return {"artifactLocation": {"uri": _uri(file)}, "region": {"startLine": max(line, 1)}}


def _result(
    report: Report, finding: Finding, file: str, evidence: list[Evidence], positions: dict[str, int]
) -> dict[str, Any]:
    line = next((e.location.line for e in evidence if e.location.line is not None), 1)
    properties: dict[str, Any] = {
        "confidence": finding.confidence,
        "severity": finding.severity,
        "detector": visible(finding.detector),
    }
    if finding.p_value is not None and finding.p_value == finding.p_value:
        properties["pValue"] = finding.p_value
    return {
        "ruleId": finding.rule,
        "ruleIndex": positions[finding.rule],
        "kind": "fail",
        "level": "note" if finding.confidence is Confidence.LOW else _LEVEL[finding.severity],
        "message": {"text": _message(finding, evidence)},
        "locations": [
            {
                "physicalLocation": _physical(file, line),
                "logicalLocations": _tensors(evidence),
            }
        ],
        "partialFingerprints": {"primaryLocationLineHash": _fingerprint(report, finding, file)},
        "properties": properties,
    }


def _message(finding: Finding, evidence: list[Evidence]) -> str:
    lines = [visible(finding.summary, _MAX_MESSAGE)]
    for piece in evidence[:_MAX_EVIDENCE]:
        parts = [piece.message, phrases.measured(piece)]
        parts += [phrases.against(piece.population)] if piece.population else []
        parts += phrases.prompts(piece)
        lines.append(visible("; ".join(filter(None, parts)), _MAX_MESSAGE))
    if len(evidence) > _MAX_EVIDENCE:
        lines.append(f"and {len(evidence) - _MAX_EVIDENCE:,} more")
    # SARIF reads [text](link) and {0} in messages; a backslash or a doubled brace makes them plain.
    return "\n".join(lines).replace("\\", "\\\\").replace("[", "\\[").replace("{", "{{").replace("}", "}}")


def _tensors(evidence: list[Evidence]) -> list[dict[str, Any]]:
    names = dict.fromkeys(e.location.tensor for e in evidence if e.location.tensor)
    return [{"fullyQualifiedName": visible(name), "kind": "member"} for name in islice(names, _MAX_EVIDENCE)]


def _fingerprint(report: Report, finding: Finding, file: str) -> str:
    """The same over revisions of the artifact, so that a service follows an alert through them."""
    identity = json.dumps([report.artifact.reference.split("@")[0], finding.rule, file])
    return hashlib.sha256(identity.encode()).hexdigest()[:16] + ":1"


def _main_file(report: Report) -> str:
    """Where a finding about the whole artifact is shown: at its largest file."""
    files: tuple[FileRecord, ...] = report.artifact.files
    return max(files, key=lambda file: file.size).path if files else report.artifact.reference


def _uri(path: str) -> str:
    """A relative URI reference; percent-encoded, so that no segment is taken for a scheme or a query."""
    path = path.encode("utf-8", "backslashreplace").decode("utf-8").lstrip("/")
    return quote(path, safe="/") or "."


def _invocation(report: Report) -> dict[str, Any]:
    failed = any(finding.outcome is Outcome.ERROR for finding in report.findings)
    invocation: dict[str, Any] = {
        "executionSuccessful": not failed,
        "toolExecutionNotifications": list(islice(_notifications(report), _MAX_NOTIFICATIONS)),
    }
    if report.command:
        invocation["commandLine"] = visible(report.command)
    return invocation


def _notifications(report: Report) -> Iterator[dict[str, Any]]:
    for finding in phrases.unanswered(report):
        level = "error" if finding.outcome is Outcome.ERROR else "warning"
        text = visible(phrases.without_answer(finding), _MAX_MESSAGE)
        yield {"level": level, "message": {"text": text}, "associatedRule": {"id": finding.rule}}
    for reason in report.decision.reasons:
        if reason.startswith("provenance."):
            yield _breach(report, visible(reason, _MAX_MESSAGE))
    for entry in report.not_looked_at:
        text = visible(f"not looked at: {entry.what}: {entry.reason}", _MAX_MESSAGE)
        yield {"level": "warning" if entry.incomplete else "note", "message": {"text": text}}


def _breach(report: Report, text: str) -> dict[str, Any]:
    """What the policy says of where the artifact comes from; no rule's answer, so no result."""
    notification: dict[str, Any] = {"level": "error", "message": {"text": text}}
    if (pin := report.listed_at) is not None:
        notification["locations"] = [{"physicalLocation": _physical(pin.file, pin.line or 1)}]
    return notification


def _properties(report: Report) -> dict[str, Any]:
    return {
        "verdict": report.verdict,
        "policy": visible(report.decision.policy),
        "reasons": [visible(reason, _MAX_MESSAGE) for reason in report.decision.reasons],
        "artifact": visible(report.artifact.resolved),
        "digest": visible(report.artifact.digest),
        "base": visible(report.base.resolved) if report.base else None,
        "answers": phrases.tally(report),
        "limits": [visible(limit) for limit in report.limits],
        "meaning": phrases.PASS_MEANS,
    }
