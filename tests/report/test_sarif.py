from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from builders import reports
from jsonschema.validators import validator_for

from ftsec_audit.report import sarif
from ftsec_audit.types import Evidence, Finding, Location, Report, Severity

_SCHEMA = Path(__file__).parents[1] / "data" / "sarif-2.1.0.json"


@pytest.fixture(scope="module")
def validator() -> Any:
    schema = json.loads(_SCHEMA.read_text(encoding="utf-8"))
    kind = validator_for(schema)
    return kind(schema, format_checker=kind.FORMAT_CHECKER)


def run_of(report: Report) -> dict[str, Any]:
    run: dict[str, Any] = json.loads(sarif.render(report))["runs"][0]
    return run


@pytest.mark.parametrize(
    "report", [reports.passing(), reports.failing(), reports.inconclusive(), reports.hostile()]
)
def test_logs_conform_to_the_official_schema(report: Report, validator: Any) -> None:
    assert [error.message for error in validator.iter_errors(json.loads(sarif.render(report)))] == []


def test_one_result_per_rule_and_file() -> None:
    results = run_of(reports.failing())["results"]
    places = [
        (r["ruleId"], r["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]) for r in results
    ]
    assert places == [(rule, "adapter_model.safetensors") for rule in ("FTA301", "FTA201", "FTA202")]
    assert [r["level"] for r in results] == ["error", "error", "note"]
    tensors = [place["fullyQualifiedName"] for place in results[1]["locations"][0]["logicalLocations"]]
    assert tensors == [f"model.layers.{layer}.self_attn.v_proj" for layer in range(14, 18)]
    assert "above 99.8 % of 412 benign" in results[1]["message"]["text"]


def test_evidence_in_several_files_gives_several_results() -> None:
    evidence = tuple(Evidence(message="x", location=Location(file=f"{i}.bin", line=i)) for i in (1, 2, 2))
    finding = replace(reports.failing().detected()[0], evidence=evidence)
    results = run_of(replace(reports.failing(), findings=(finding,)))["results"]
    physical = [r["locations"][0]["physicalLocation"] for r in results]
    assert [p["artifactLocation"]["uri"] for p in physical] == ["1.bin", "2.bin"]
    assert [p["region"]["startLine"] for p in physical] == [1, 2]


def test_a_finding_without_a_place_is_shown_at_the_largest_file() -> None:
    finding = replace(reports.failing().detected()[0], evidence=())
    result = run_of(replace(reports.failing(), findings=(finding,)))["results"][0]
    assert (
        result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == "adapter_model.safetensors"
    )


def test_only_detections_are_results() -> None:
    # Code-scanning services raise an alert for every result, whatever its kind and suppressions.
    assert run_of(reports.passing())["results"] == []
    assert {r["kind"] for r in run_of(reports.failing())["results"]} == {"fail"}
    assert "FTA412" not in {r["ruleId"] for r in run_of(reports.failing())["results"]}


def test_open_questions_are_notifications() -> None:
    invocation = run_of(reports.inconclusive())["invocations"][0]
    assert invocation["executionSuccessful"] is False
    notes = [(n["level"], n["message"]["text"]) for n in invocation["toolExecutionNotifications"]]
    assert notes == [
        ("warning", "FTA101 not supported: the base could not be resolved"),
        ("error", "FTA103 error: ZeroDivisionError in DamagedWeights@1"),
        ("warning", "not looked at: adapter_model.safetensors: ends 4,096 bytes before its header says"),
    ]
    assert run_of(reports.passing())["invocations"][0]["executionSuccessful"] is True


def test_rules_explain_themselves_and_name_their_taxonomies() -> None:
    run = run_of(reports.failing())
    rules = {rule["id"]: rule for rule in run["tool"]["driver"]["rules"]}
    pickle = rules["FTA401"]
    assert pickle["name"] == "PickleCode"
    assert pickle["properties"]["security-severity"] == "9.5"
    assert "external/cwe/cwe-502" in pickle["properties"]["tags"]
    assert "ftsec-audit explain FTA401" in pickle["help"]["markdown"]
    targets = {(t["target"]["toolComponent"]["name"], t["target"]["id"]) for t in pickle["relationships"]}
    taxa = {(taxonomy["name"], taxon["id"]) for taxonomy in run["taxonomies"] for taxon in taxonomy["taxa"]}
    assert targets <= taxa
    for result in run["results"]:
        assert run["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == result["ruleId"]


def test_a_rule_of_a_third_party_needs_no_description() -> None:
    finding = replace(reports.failing().detected()[0], rule="XYZ1")
    run = run_of(replace(reports.failing(), findings=(finding,)))
    assert run["tool"]["driver"]["rules"][run["results"][0]["ruleIndex"]]["id"] == "XYZ1"


def test_fingerprints_survive_a_new_revision_and_tell_files_apart() -> None:
    def fingerprints(report: Report) -> list[str]:
        return [r["partialFingerprints"]["primaryLocationLineHash"] for r in run_of(report)["results"]]

    old = reports.failing()
    card = replace(
        old.artifact, reference="mallory/helpful-lora@other", resolved="mallory/helpful-lora@other"
    )
    assert fingerprints(replace(old, artifact=card)) == fingerprints(old)
    assert len(set(fingerprints(old))) == 3
    moved = replace(old, artifact=replace(old.artifact, reference="mallory/another"))
    assert not set(fingerprints(moved)) & set(fingerprints(old))


@pytest.mark.parametrize(
    "path",
    [
        "a b/ü#?.bin",
        "/etc/passwd",
        "c:evil.bin",
        "%2e%2e/x",
        "\udc80.bin",
        "https://evil.example/x",
        "",
        "日本",
    ],
)
def test_paths_become_relative_references(path: str) -> None:
    uri = sarif._uri(path)
    assert uri.isascii()
    assert not uri.startswith("/")
    assert not set(uri) & set(":?# \\")
    if path and path.isprintable():
        assert unquote(uri) == path.lstrip("/")


def test_messages_hold_neither_links_nor_placeholders() -> None:
    text = run_of(reports.hostile())["results"][0]["message"]["text"]
    assert "\\[x](javascript:" in text
    assert "{{{{7*7}}}}" in text


def test_no_more_results_than_services_accept() -> None:
    evidence = tuple(Evidence(message="x", location=Location(file=f"{i}")) for i in range(100))
    finding = replace(reports.failing().detected()[0], evidence=evidence, severity=Severity.LOW)
    findings: tuple[Finding, ...] = (finding,) * 260
    assert len(run_of(replace(reports.failing(), findings=findings))["results"]) == sarif.MAX_RESULTS


def test_of_a_listed_artifact_each_rule_is_shown_once_at_the_line_that_pins_it(validator: Any) -> None:
    evidence = tuple(Evidence(message="x", location=Location(file=f"{i}.bin", line=i)) for i in (1, 2, 2))
    finding = replace(reports.failing().detected()[0], evidence=evidence)
    listed = Location(file="deploy/models.yaml", line=7)
    report = replace(reports.failing(), findings=(finding,), listed_at=listed)
    log = json.loads(sarif.render(report))
    assert [error.message for error in validator.iter_errors(log)] == []
    [result] = log["runs"][0]["results"]
    place = result["locations"][0]["physicalLocation"]
    assert place == {"artifactLocation": {"uri": "deploy/models.yaml"}, "region": {"startLine": 7}}
    related = [r["physicalLocation"]["artifactLocation"]["uri"] for r in result["relatedLocations"]]
    assert related == ["1.bin", "2.bin"]
    moved = replace(report, listed_at=Location(file="deploy/models.yaml", line=9))
    [later] = run_of(moved)["results"]
    assert later["partialFingerprints"] == result["partialFingerprints"], "the same alert on another line"


def test_a_breach_of_provenance_is_a_notification_at_the_pin(validator: Any) -> None:
    decision = replace(
        reports.passing().decision, reasons=("provenance.pinned_revision: a/b names no full commit",)
    )
    report = replace(reports.passing(), decision=decision, listed_at=Location(file="models.yaml", line=3))
    log = json.loads(sarif.render(report))
    assert [error.message for error in validator.iter_errors(log)] == []
    [run] = log["runs"]
    [note, *_] = run["invocations"][0]["toolExecutionNotifications"]
    assert note["level"] == "error"
    assert note["locations"][0]["physicalLocation"]["region"]["startLine"] == 3
    assert run["properties"]["reasons"] == list(decision.reasons)
