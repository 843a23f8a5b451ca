"""CycloneDX 1.7: the model as a component of a bill of materials, with the findings as vulnerabilities.

The base is the ancestor in the pedigree; files are parts of the model with their SHA-256. What the model
card says of itself becomes the model card of the component, and is no finding of this program. Findings
that a person accepted stay in the list, as something that will not be fixed. The serial number is derived
from the report, so that equal reports are the same document. https://cyclonedx.org/docs/1.7/json/
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import quote
from uuid import UUID, uuid5

from ftsec_audit import taxonomy
from ftsec_audit.report import json as stored
from ftsec_audit.report import phrases
from ftsec_audit.report.digests import sha256_of
from ftsec_audit.report.escape import visible
from ftsec_audit.types import ArtifactCard, Evidence, FileRecord, Finding, Report

SCHEMA = "http://cyclonedx.org/schema/bom-1.7.schema.json"
_NAMESPACE = UUID("6f0dd8f0-6e4e-5a0b-9d4b-6d2f5d0b7f11")
_MODEL = "model"
_BASE = "base"
_MAX_EVIDENCE = 20
_MAX_TEXT = 1_000
_ON_THE_HUB = re.compile(r"^((?:[\w.-]+/)?[\w.-]+)@([0-9a-f]{40})(?:/(.+))?$", re.ASCII)


def render(report: Report) -> str:
    return json.dumps(stored.plain(document(report)), indent=2) + "\n"


def document(report: Report) -> dict[str, Any]:
    """The bill of materials as JSON values."""
    return {
        "$schema": SCHEMA,
        "bomFormat": "CycloneDX",
        "specVersion": "1.7",
        "serialNumber": f"urn:uuid:{uuid5(_NAMESPACE, stored.render(report))}",
        "version": 1,
        "metadata": {
            "tools": {
                "components": [
                    {"type": "application", "name": "ftsec-audit", "version": visible(report.tool_version)}
                ]
            },
            "component": _model(report),
            "properties": list(_properties(report)),
        },
        "compositions": [{"aggregate": _completeness(report), "assemblies": [_MODEL]}],
        "vulnerabilities": list(_vulnerabilities(report)),
    }


def _model(report: Report) -> dict[str, Any]:
    card = report.artifact
    model = _component(card, _MODEL)
    if report.base is not None:
        model["pedigree"] = {"ancestors": [_component(report.base, _BASE)]}
    elif card.base_reference:
        note = f"declares {visible(card.base_reference, _MAX_TEXT)} as its base, which was not compared"
        model["pedigree"] = {"notes": note}
    model["components"] = [_file(number, file) for number, file in enumerate(card.files)]
    model["modelCard"] = _model_card(report)
    if licenses := card.declared.get("license"):
        model["licenses"] = [{"license": {"name": visible(name)}} for name in licenses]
    if tags := card.declared.get("tags"):
        model["tags"] = [visible(tag) for tag in tags]
    return model


def _component(card: ArtifactCard, ref: str) -> dict[str, Any]:
    component: dict[str, Any] = {"type": "machine-learning-model", "bom-ref": ref}
    if match := _ON_THE_HUB.match(card.resolved):
        repository, commit, folder = match.groups()
        group, _, name = repository.rpartition("/")
        component |= {"group": group} if group else {}
        component |= {"name": name, "version": commit}
        component["purl"] = f"pkg:huggingface/{repository}@{commit}" + (f"#{quote(folder)}" if folder else "")
    else:
        component["name"] = visible(card.resolved or card.reference, _MAX_TEXT)
    if card.description:
        component["description"] = visible(card.description, _MAX_TEXT)
    if len(card.files) == 1:
        component |= _hashes(card.files[0].digest)
    return component


def _file(number: int, file: FileRecord) -> dict[str, Any]:
    return {
        "type": "file",
        "bom-ref": f"file-{number}",
        "name": visible(file.path),
        **_hashes(file.digest),
        "properties": [_property("size", str(file.size))],
    }


def _hashes(digest: str) -> dict[str, Any]:
    digits = sha256_of(digest)
    return {"hashes": [{"alg": "SHA-256", "content": digits}]} if digits else {}


def _model_card(report: Report) -> dict[str, Any]:
    card = report.artifact
    parameters: dict[str, Any] = {}
    if card.description:
        parameters["modelArchitecture"] = visible(card.description, _MAX_TEXT)
    if task := card.declared.get("pipeline_tag"):
        parameters["task"] = visible(task[0])
    if datasets := card.declared.get("datasets"):
        parameters["datasets"] = [{"type": "dataset", "name": visible(name)} for name in datasets]
    rest = ("language", "library_name", "license_name")
    said = [_property(f"declared-{key}", value) for key in rest for value in card.declared.get(key, ())]
    return {"bom-ref": "model-card", "modelParameters": parameters, "properties": said}


def _properties(report: Report) -> Iterator[dict[str, str]]:
    decision = report.decision
    yield _property("verdict", report.verdict)
    yield _property("meaning", phrases.PASS_MEANS)
    yield _property("policy", decision.policy)
    yield _property("policy-digest", decision.policy_digest)
    yield from (_property("reason", reason) for reason in decision.reasons)
    yield _property("profile", report.profile)
    yield _property("artifact-digest", report.artifact.digest)
    if report.suspicion.total is not None:
        yield _property("suspicion", phrases.number(report.suspicion.total))
    yield from (_property("not-looked-at", f"{e.what}: {e.reason}") for e in report.not_looked_at)
    yield from (_property("without-answer", phrases.without_answer(f)) for f in phrases.unanswered(report))
    yield from (_property("limit", limit) for limit in report.limits)
    if report.command:
        yield _property("command", report.command)


def _property(name: str, value: str) -> dict[str, str]:
    return {"name": f"ftsec-audit:{name}", "value": visible(value, _MAX_TEXT)}


def _completeness(report: Report) -> str:
    return "incomplete" if any(entry.incomplete for entry in report.not_looked_at) else "complete"


def _vulnerabilities(report: Report) -> Iterator[dict[str, Any]]:
    names = phrases.rule_names(report)
    places = {file.path: f"file-{number}" for number, file in enumerate(report.artifact.files)}
    for number, finding in enumerate(report.detected()):
        yield _vulnerability(f"finding-{number}", finding, names.get(finding.rule, ""), places)
    for number, entry in enumerate(report.suppressed):
        shown = _vulnerability(f"accepted-{number}", entry.finding, names.get(entry.finding.rule, ""), places)
        yield shown | {
            "analysis": {"response": ["will_not_fix"], "detail": visible(entry.statement, _MAX_TEXT)}
        }


def _vulnerability(ref: str, finding: Finding, name: str, places: dict[str, str]) -> dict[str, Any]:
    references = _references(finding.rule)
    certainty = f"confidence {finding.confidence}"
    if finding.p_value is not None:
        certainty += f", {phrases.p_value(finding.p_value)}"
    return {
        "bom-ref": ref,
        "id": visible(finding.rule),
        "source": {"name": "ftsec-audit"},
        "references": [
            {"id": entry.id, "source": {"name": entry.taxonomy, "url": entry.url}} for entry in references
        ],
        "ratings": [
            {
                "source": {"name": "ftsec-audit"},
                "severity": finding.severity,
                "method": "other",
                "justification": certainty,
            }
        ],
        "cwes": [int(e.id.removeprefix("CWE-")) for e in references if e.taxonomy == taxonomy.CWE],
        "description": visible(f"{name}: {finding.summary}" if name else finding.summary, _MAX_TEXT),
        "detail": "\n".join(_details(finding.evidence)),
        "recommendation": visible(finding.remediation, _MAX_TEXT),
        "affects": [{"ref": ref} for ref in _affected(finding.evidence, places)],
        "properties": [_property("detector", finding.detector)],
    }


def _references(rule: str) -> tuple[taxonomy.Reference, ...]:
    try:
        return taxonomy.references(rule)
    except KeyError:  # a third party's rule
        return ()


def _details(evidence: tuple[Evidence, ...]) -> Iterator[str]:
    for piece in evidence[:_MAX_EVIDENCE]:
        parts = [piece.message, phrases.measured(piece)]
        parts += [phrases.against(piece.population)] if piece.population else []
        parts += phrases.prompts(piece)
        yield visible("; ".join(filter(None, [*parts, phrases.place(piece.location)])), _MAX_TEXT)
    if (rest := len(evidence) - _MAX_EVIDENCE) > 0:
        yield f"and {rest:,} more"


def _affected(evidence: Iterable[Evidence], places: dict[str, str]) -> list[str]:
    """The files that the evidence lies in; the model, where it lies in none that is listed."""
    found = dict.fromkeys(places.get(piece.location.file, _MODEL) for piece in evidence)
    return list(found) or [_MODEL]
