"""Accepted findings: what they cover, when they stop, and that missing answers cannot be accepted."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest
from builders import reports

from ftsec_audit import api
from ftsec_audit.errors import UsageError
from ftsec_audit.policy import Policy
from ftsec_audit.suppress import Baseline, IgnoreFile, sift
from ftsec_audit.types import Evidence, Outcome, Verdict

TODAY = date(2026, 6, 1)


def ignoring(tmp_path: Path, *entries: str) -> IgnoreFile:
    path = tmp_path / "ignore.yaml"
    path.write_text("version: 1\nignore:\n" + "".join(f"  - {{{entry}}}\n" for entry in entries))
    return IgnoreFile.load(path)


def sifted(ignore: IgnoreFile | None = None, baseline: Baseline | None = None, report=None):
    report = report or reports.failing()
    return sift(report.findings, report.artifact, ignore=ignore, baseline=baseline, today=TODAY)


def rules(findings) -> set[str]:
    return {finding.rule for finding in findings if finding.outcome is Outcome.DETECTED}


def test_an_entry_sets_its_rule_aside_and_keeps_the_statement(tmp_path: Path) -> None:
    result = sifted(ignoring(tmp_path, "id: FTA301, statement: vocabulary extended (J. Doe)"))
    assert rules(result.findings) == {"FTA201", "FTA202"}
    (entry,) = result.suppressed
    assert (entry.finding.rule, entry.statement) == ("FTA301", "vocabulary extended (J. Doe)")


def test_a_prefix_covers_a_family(tmp_path: Path) -> None:
    assert rules(sifted(ignoring(tmp_path, "id: FTA2, statement: x")).findings) == {"FTA301"}


@pytest.mark.parametrize(
    ("glob", "kept"),
    [("mallory/*", False), ("*@d04e592f*", False), ("acme/*", True), ("mallory", True)],
)
def test_an_entry_can_be_bound_to_artifacts(tmp_path: Path, glob: str, kept: bool) -> None:
    result = sifted(ignoring(tmp_path, f"id: FTA301, artifact: '{glob}', statement: x"))
    assert ("FTA301" in rules(result.findings)) is kept


@pytest.mark.parametrize(("paths", "kept"), [("['*.safetensors']", False), ("['*.bin']", True)])
def test_an_entry_can_be_bound_to_files(tmp_path: Path, paths: str, kept: bool) -> None:
    result = sifted(ignoring(tmp_path, f"id: FTA301, paths: {paths}, statement: x"))
    assert ("FTA301" in rules(result.findings)) is kept


def test_paths_do_not_cover_evidence_that_names_no_file(tmp_path: Path) -> None:
    report = reports.failing()
    findings = tuple(
        replace(finding, evidence=(Evidence(message="no place"),)) for finding in report.findings
    )
    result = sifted(
        ignoring(tmp_path, "id: FTA201, paths: ['*'], statement: x"),
        report=replace(report, findings=findings),
    )
    assert "FTA201" in rules(result.findings)


@pytest.mark.parametrize(("day", "kept"), [("2026-06-01", True), ("2026-06-02", False)])
def test_an_expired_entry_stops_working_and_is_listed(tmp_path: Path, day: str, kept: bool) -> None:
    result = sifted(ignoring(tmp_path, f"id: FTA301, expired_at: {day}, statement: until then"))
    assert ("FTA301" in rules(result.findings)) is kept
    assert bool(result.expired) is kept
    if kept:
        assert "FTA301 (until then) expired on 2026-06-01" in result.expired[0]


def test_a_missing_answer_cannot_be_accepted(tmp_path: Path) -> None:
    report = reports.inconclusive()
    result = sifted(ignoring(tmp_path, "id: FTA1, statement: x"), report=report)
    assert result.findings == report.findings
    assert result.suppressed == ()


@pytest.mark.parametrize(
    ("entry", "complaint"),
    [
        ("id: FTA301", "line 3: ignore[0].statement"),
        ("id: nope, statement: x", "line 3: ignore[0].id"),
        ("id: FTA301, statement: x, expires: 2026-01-01", "line 3: ignore[0].expires"),
        ("id: FTA301, statement: x, expired_at: soon", "line 3: ignore[0].expired_at"),
    ],
)
def test_mistakes_are_reported_with_their_lines(tmp_path: Path, entry: str, complaint: str) -> None:
    with pytest.raises(UsageError) as caught:
        ignoring(tmp_path, entry)
    assert complaint in str(caught.value)


@pytest.mark.parametrize("name", ["old.json", "old.jsonl"])
def test_a_baseline_accepts_what_the_same_bytes_had_before(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text(api.render(reports.failing(), path.suffix[1:]))
    result = sifted(baseline=Baseline.load(path))
    assert rules(result.findings) == set()
    assert {entry.statement for entry in result.suppressed} == {f"in baseline {name}"}


def test_a_baseline_does_not_cover_other_bytes_other_places_or_other_rules(tmp_path: Path) -> None:
    path = tmp_path / "old.json"
    path.write_text(api.render(reports.failing(), "json"))
    baseline = Baseline.load(path)
    report = reports.failing()
    other_bytes = replace(report, artifact=replace(report.artifact, digest="sha256:00"))
    no_digest = replace(report, artifact=replace(report.artifact, digest=""))
    elsewhere = replace(
        report,
        findings=tuple(replace(f, evidence=f.evidence[:1]) for f in report.findings if f.rule == "FTA201"),
    )
    assert rules(sifted(baseline=baseline, report=other_bytes).findings) == {"FTA201", "FTA202", "FTA301"}
    assert rules(sifted(baseline=baseline, report=no_digest).findings) == {"FTA201", "FTA202", "FTA301"}
    assert rules(sifted(baseline=baseline, report=elsewhere).findings) == {"FTA201"}


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"schema_version": "1.0"}', "\x00", None])
def test_what_is_no_report_is_no_baseline(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "old.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UsageError, match=r"old\.json"):
        Baseline.load(path)


def test_suppression_is_what_the_policy_then_judges(tmp_path: Path) -> None:
    report, policy = reports.failing(), Policy.load()
    assert api.judged(report, policy).verdict is Verdict.FAIL
    ignore = ignoring(
        tmp_path, "id: FTA201, statement: x", "id: FTA301, statement: y, expired_at: 2001-01-01"
    )
    partly = api.judged(report, policy, ignore_file=ignore)
    assert partly.verdict is Verdict.FAIL
    assert any("expired" in limit for limit in partly.limits)
    both = ignoring(tmp_path, "id: FTA201, statement: x", "id: FTA301, statement: y")
    passed = api.judged(report, policy, ignore_file=both)
    assert passed.verdict is Verdict.PASS, "a set-aside detection is still an answer to a required rule"
    assert len(passed.suppressed) == len(report.suppressed) + 2
