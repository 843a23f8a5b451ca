from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from builders import reports

from ftsec_audit.errors import UsageError
from ftsec_audit.report import intoto
from ftsec_audit.types import Decision, FileRecord, Outcome, Report, Verdict

NOW = "2026-01-02T03:04:05Z"


def statements(report: Report, created: str = NOW) -> list[dict[str, Any]]:
    return [json.loads(line) for line in intoto.render(report, created=created).splitlines()]


def test_statements_name_every_file_by_digest() -> None:
    for statement in statements(reports.passing()):
        assert statement["_type"] == "https://in-toto.io/Statement/v1"
        assert statement["subject"] == [
            {"name": "README.md", "digest": {"sha256": "0a" * 32}},
            {"name": "adapter_config.json", "digest": {"sha256": "5e" * 32}},
            {"name": "adapter_model.safetensors", "digest": {"sha256": "2c" * 32}},
            {"name": "tokenizer.json", "digest": {"sha256": "7f" * 32}},
        ]


def test_the_predicates_have_what_their_specifications_require() -> None:
    tests, verification = statements(reports.passing())
    assert tests["predicateType"] == "https://in-toto.io/attestation/test-result/v0.1"
    assert tests["predicate"]["result"] == "PASSED"
    assert tests["predicate"]["configuration"][0]["name"] == "default"
    assert verification["predicateType"] == "https://in-toto.io/attestation/svr/v0.2"
    assert verification["predicate"]["timeCreated"] == NOW
    assert verification["predicate"]["verifier"]["id"] == "pkg:pypi/ftsec-audit@0.1.0"
    assert verification["predicate"]["verifier"]["policies"][0]["name"] == "default"
    assert "FTSEC_AUDIT_POLICY_PASSED" in verification["predicate"]["properties"]


def test_without_a_time_nothing_says_when() -> None:
    assert [s["predicateType"] for s in statements(reports.passing(), created="")] == [intoto.TEST_RESULT]


def test_a_failed_policy_names_what_failed_and_claims_no_pass() -> None:
    tests, verification = (s["predicate"] for s in statements(reports.failing()))
    assert tests["result"] == "FAILED"
    assert tests["failedTests"] == ["FTA201", "FTA301"]
    assert tests["warnedTests"] == ["FTA202"]
    assert set(tests["passedTests"]).isdisjoint(("FTA201", "FTA202", "FTA301"))
    claimed = verification["properties"]
    assert "FTSEC_AUDIT_POLICY_PASSED" not in claimed
    assert "FTSEC_AUDIT_FTA103_NOT_DETECTED" in claimed
    assert "FTSEC_AUDIT_FTA301_NOT_DETECTED" not in claimed
    assert "FTSEC_AUDIT_FTA412_NOT_DETECTED" not in claimed, "that finding was accepted, not absent"


def test_no_answer_is_never_a_pass() -> None:
    tests, verification = (s["predicate"] for s in statements(reports.inconclusive()))
    assert tests["result"] == "FAILED"
    assert {"FTA101", "FTA103"} <= set(tests["warnedTests"])
    assert not {"FTSEC_AUDIT_POLICY_PASSED", "FTSEC_AUDIT_FTA101_NOT_DETECTED"} & set(
        verification["properties"]
    )


def test_a_pass_with_open_questions_is_warned() -> None:
    report = reports.passing()
    open_question = replace(report.findings[0], outcome=Outcome.NOT_SUPPORTED)
    [tests, _] = statements(replace(report, findings=(open_question, *report.findings[1:])))
    assert tests["predicate"]["result"] == "WARNED"


def test_a_rule_with_two_answers_does_not_pass_by_one_of_them() -> None:
    report = reports.passing()
    twice = (replace(report.findings[0], outcome=Outcome.ERROR), *report.findings)
    tests, verification = (s["predicate"] for s in statements(replace(report, findings=twice)))
    assert report.findings[0].rule in tests["warnedTests"]
    assert report.findings[0].rule not in tests["passedTests"]
    assert f"FTSEC_AUDIT_{report.findings[0].rule}_NOT_DETECTED" not in verification["properties"]


def test_nothing_is_claimed_of_an_artifact_with_a_file_that_has_no_digest() -> None:
    card = reports.passing().artifact
    card = replace(card, files=(*card.files, FileRecord(path="late.py", size=3)))
    tests, verification = (s["predicate"] for s in statements(replace(reports.passing(), artifact=card)))
    assert verification["properties"] == []
    assert tests["result"] == "FAILED"
    assert tests["ftsecAudit"]["filesWithoutDigest"] == ["late.py"]


def test_without_any_digest_there_is_no_statement() -> None:
    card = replace(reports.passing().artifact, files=(FileRecord(path="a", size=1),))
    with pytest.raises(UsageError, match="names files by digest"):
        intoto.render(replace(reports.passing(), artifact=card))


def test_the_policy_is_named_by_what_it_says() -> None:
    decision = Decision(verdict=Verdict.PASS, policy="p.yaml", policy_digest=f"sha256:{'a' * 64}")
    _, verification = statements(replace(reports.passing(), decision=decision))
    [policy] = verification["predicate"]["verifier"]["policies"]
    assert policy == {"name": "p.yaml", "uri": "urn:ftsec-audit:policy", "digest": {"sha256": "a" * 64}}
