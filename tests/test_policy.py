"""Policies: what blocks, what must be answered, and which clause said so."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from builders import reports

from detectors.replaced_word import REPLACED
from detectors.weight_edit import WEIGHT_EDIT
from ftsec_audit.errors import UsageError
from ftsec_audit.policy import SHIPPED, Clause, Policy, Triage
from ftsec_audit.types import Confidence, FileRecord, NotLookedAt, Outcome, Profile, Severity, Verdict

RULES = {rule.id: rule for rule in reports.RULES}


def policy(tmp_path: Path, text: str) -> Policy:
    path = tmp_path / "policy.yaml"
    path.write_text(text)
    return Policy.load(path)


def detected(rule: str, severity: Severity, confidence: Confidence):
    return RULES[rule].detected("x", confidence=confidence, severity=severity, evidence=())


def with_findings(*findings, **changes):
    """A passing report in which these findings replace those of their rules."""
    report = reports.passing()
    replaced = {finding.rule for finding in findings}
    rest = tuple(f for f in report.findings if f.rule not in replaced)
    return replace(report, findings=(*findings, *rest), **changes)


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_policy_is_valid_and_knows_its_name(name: str) -> None:
    assert Policy.load(name).name == name


def test_the_default_policy_passes_a_clean_report_and_says_nothing() -> None:
    decision = Policy.load().decide(reports.passing())
    assert (decision.verdict, decision.policy, decision.reasons) == (Verdict.PASS, "default", ())


@pytest.mark.parametrize(
    ("severity", "confidence", "verdict"),
    [
        (Severity.CRITICAL, Confidence.HIGH, Verdict.FAIL),
        (Severity.HIGH, Confidence.MEDIUM, Verdict.FAIL),
        (Severity.HIGH, Confidence.LOW, Verdict.PASS),
        (Severity.MEDIUM, Confidence.HIGH, Verdict.PASS),
    ],
)
def test_the_default_policy_blocks_what_is_severe_and_believable(severity, confidence, verdict) -> None:
    decision = Policy.load().decide(with_findings(detected("FTA201", severity, confidence)))
    assert decision.verdict is verdict
    assert any("FTA201" in reason for reason in decision.reasons), "blocked or warned, never silent"


def test_a_reason_names_its_clause() -> None:
    decision = Policy.load().decide(with_findings(detected("FTA401", Severity.CRITICAL, Confidence.HIGH)))
    assert decision.reasons == (
        "fail[0] (severity ≥ high, confidence ≥ medium): FTA401 is critical, confidence high",
    )


@pytest.mark.parametrize("outcome", [Outcome.NOT_SUPPORTED, Outcome.ERROR])
def test_a_required_rule_without_an_answer_is_inconclusive(outcome: Outcome) -> None:
    report = with_findings(RULES["FTA103"].unanswered(outcome, "the file is cut short"))
    decision = Policy.load().decide(report)
    assert decision.verdict is Verdict.INCONCLUSIVE
    assert decision.reasons == (
        f"require[0] (FTA1): FTA103 has no answer ({outcome}): the file is cut short",
    )


def test_a_rule_that_is_not_required_may_stay_open() -> None:
    report = with_findings(RULES["FTA201"].not_supported("no comparable adapters"))
    assert Policy.load().decide(report).verdict is Verdict.PASS


def test_a_required_family_of_which_nothing_ran_is_inconclusive() -> None:
    report = reports.passing()
    report = replace(report, findings=tuple(f for f in report.findings if not f.rule.startswith("FTA4")))
    decision = Policy.load().decide(report)
    assert decision.verdict is Verdict.INCONCLUSIVE
    assert decision.reasons == ("require[1] (FTA4): no rule was run",)


def test_embedding_rules_are_required_from_the_standard_profile_on() -> None:
    report = reports.passing()
    report = replace(report, findings=tuple(f for f in report.findings if not f.rule.startswith("FTA3")))
    assert Policy.load().decide(report).verdict is Verdict.INCONCLUSIVE
    assert Policy.load().decide(replace(report, profile=Profile.DEEP)).verdict is Verdict.INCONCLUSIVE
    assert Policy.load().decide(replace(report, profile=Profile.QUICK)).verdict is Verdict.PASS


def test_an_edit_that_was_not_asked_about_is_inconclusive_and_one_that_was_is_not() -> None:
    edit = WEIGHT_EDIT.detected("one matrix", confidence=Confidence.HIGH, evidence=())
    unasked = REPLACED.not_supported("the model is too large")
    decision = Policy.load().decide(with_findings(edit, unasked))
    assert decision.verdict is Verdict.INCONCLUSIVE
    assert decision.reasons[0].startswith("require[3] (FTA510): FTA510 has no answer")
    asked = REPLACED.not_detected("nothing is replaced")
    assert Policy.load().decide(with_findings(edit, asked)).verdict is Verdict.PASS
    assert Policy.load().decide(with_findings(unasked)).verdict is Verdict.PASS, (
        "there is no edit to ask about"
    )


def test_what_could_not_be_read_is_never_a_pass_even_when_nothing_is_required(tmp_path: Path) -> None:
    entry = NotLookedAt(what="a.bin", reason="cut short", incomplete=True)
    lenient = policy(tmp_path, "version: 1\n")
    assert lenient.decide(reports.passing()).verdict is Verdict.PASS
    decision = lenient.decide(replace(reports.passing(), not_looked_at=(entry,)))
    assert (decision.verdict, decision.reasons) == (Verdict.INCONCLUSIVE, ("incomplete: a.bin: cut short",))


def test_a_blocking_finding_outranks_every_error() -> None:
    report = with_findings(
        detected("FTA401", Severity.CRITICAL, Confidence.HIGH),
        RULES["FTA103"].unanswered(Outcome.ERROR, "boom"),
        not_looked_at=(NotLookedAt(what="a", reason="b", incomplete=True),),
    )
    decision = Policy.load().decide(report)
    assert decision.verdict is Verdict.FAIL
    assert len(decision.reasons) == 3, "the open questions are still told"


def test_on_inconclusive_can_block(tmp_path: Path) -> None:
    report = with_findings(RULES["FTA103"].not_supported("x"))
    strict = policy(tmp_path, "version: 1\nrequire: [FTA103]\non_inconclusive: fail\n")
    assert strict.decide(report).verdict is Verdict.FAIL


def test_an_override_changes_what_a_severity_clause_sees_and_tells_its_reason(tmp_path: Path) -> None:
    report = with_findings(detected("FTA301", Severity.CRITICAL, Confidence.HIGH))
    lowered = policy(
        tmp_path,
        "version: 1\nfail: [{severity: high}]\n"
        "overrides: [{rule: FTA301, severity: low, reason: vocabulary was extended on purpose}]\n",
    )
    decision = lowered.decide(report)
    assert decision.verdict is Verdict.PASS
    assert decision.reasons == (
        "no clause: FTA301 is low, confidence high; neither fail nor warn names it",
        "overrides[0]: FTA301 counts as low: vocabulary was extended on purpose",
    )


def test_clauses_by_rule_block_whatever_the_severity(tmp_path: Path) -> None:
    report = with_findings(detected("FTA202", Severity.LOW, Confidence.LOW))
    assert policy(tmp_path, "version: 1\nfail: [{rules: [FTA2]}]\n").decide(report).verdict is Verdict.FAIL


def test_fail_on_replaces_the_severity_and_keeps_the_rest(tmp_path: Path) -> None:
    mine = policy(tmp_path, "version: 1\nfail: [{severity: high, min_confidence: high}, {rules: [FTA412]}]\n")
    medium = mine.with_fail_on(Severity.MEDIUM)
    believed = with_findings(detected("FTA202", Severity.MEDIUM, Confidence.HIGH))
    doubted = with_findings(detected("FTA202", Severity.MEDIUM, Confidence.MEDIUM))
    named = with_findings(detected("FTA412", Severity.LOW, Confidence.LOW))
    assert [medium.decide(r).verdict for r in (believed, doubted, named)] == [
        Verdict.FAIL,
        Verdict.PASS,
        Verdict.FAIL,
    ]
    assert mine.with_fail_on(None).decide(believed).verdict is Verdict.PASS
    assert "--fail-on medium" in medium.decide(believed).policy


def test_fail_on_works_for_a_policy_without_a_severity_clause(tmp_path: Path) -> None:
    report = with_findings(detected("FTA201", Severity.LOW, Confidence.MEDIUM))
    changed = policy(tmp_path, "version: 1\n").with_fail_on(Severity.LOW)
    assert changed.decide(report).verdict is Verdict.FAIL


def test_provenance_names_the_file_of_a_format_that_is_not_allowed(tmp_path: Path) -> None:
    safe_only = policy(tmp_path, "version: 1\nprovenance: {allowed_formats: [safetensors]}\n")
    report = reports.passing()
    assert safe_only.decide(report).verdict is Verdict.PASS, "configurations have no such format"
    files = (*report.artifact.files, FileRecord(path="adapter_model.bin", size=1, format="bin"))
    decision = safe_only.decide(replace(report, artifact=replace(report.artifact, files=files)))
    assert decision.verdict is Verdict.FAIL
    assert "adapter_model.bin is bin" in decision.reasons[0]


@pytest.mark.parametrize(
    ("reference", "resolved", "verdict"),
    [
        ("org/model", "org/model@" + "a" * 40, Verdict.FAIL),
        ("org/model@main", "org/model@" + "a" * 40, Verdict.FAIL),
        ("org/model@" + "a" * 40, "org/model@" + "a" * 40, Verdict.PASS),
        ("hf://org/model@" + "a" * 40 + "/sub", "org/model@" + "a" * 40 + "/sub", Verdict.PASS),
        ("./model", "/home/me/model", Verdict.PASS),
    ],
)
def test_provenance_wants_a_full_commit_for_what_is_remote(tmp_path, reference, resolved, verdict) -> None:
    pinned = policy(tmp_path, "version: 1\nprovenance: {pinned_revision: true}\n")
    report = reports.passing()
    card = replace(report.artifact, reference=reference, resolved=resolved)
    assert pinned.decide(replace(report, artifact=card)).verdict is verdict


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("version: 2\n", "line 1: version"),
        ("fail: []\n", "version: Field required"),
        ("version: 1\nfail:\n  - {severity: hihg}\n", "line 3: fail[0].severity"),
        (
            "version: 1\nfail:\n  - severity: high\n    min_confidence: very\n",
            "line 4: fail[0].min_confidence",
        ),
        ("version: 1\nfail: [{}]\n", "line 2: fail[0]"),
        ("version: 1\n\nrequire: [FTA1, FTX]\n", "line 3: require[1].rules"),
        ("version: 1\nrequired: [FTA1]\n", "line 2: required: there is no such key"),
        ("version: 1\nfail: []\nwarn: []\nfail: []\n", "line 4: key 'fail' appears twice"),
        ("version: 1\nfail: [\n", "policy.yaml:3: "),
        ("version: 1\nx: !!python/object/apply:os.system ['true']\n", "could not determine a constructor"),
        ("version: 1\noverrides: [{rule: FTA1, severity: low, reason: ''}]\n", "line 2: overrides[0].reason"),
        ("version: 1\nwaivers: [{id: FTA1, statement: x}]\n", "line 2: waivers[0].expired_at"),
        ("version: 1\ntriage: {min_suspicion: 2}\n", "line 2: triage.min_suspicion"),
        ("- 1\n", "must be a mapping"),
        ("", "must be a mapping"),
    ],
)
def test_mistakes_are_reported_with_their_lines(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(UsageError) as caught:
        policy(tmp_path, text)
    assert complaint in str(caught.value)
    assert "policy.yaml" in str(caught.value)


def test_the_default_policy_is_what_its_file_says() -> None:
    assert Policy.load("default") == Policy.load(Policy.path_of("default"))


def test_every_mistake_is_reported_at_once(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        policy(tmp_path, "version: 1\nfail:\n  - {severity: bad}\n  - {severity: worse}\n")
    assert "line 3" in str(caught.value)
    assert "line 4" in str(caught.value)


@pytest.mark.parametrize("content", [None, b"\xff\xfe", b"version: 1\n#" + b"x" * (1 << 20)])
def test_a_file_that_cannot_be_read_is_a_usage_error(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "p.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=r"p\.yaml"):
        Policy.load(path)


def test_a_decision_names_the_policy_by_what_it_says(tmp_path: Path) -> None:
    first, second = tmp_path / "a.yaml", tmp_path / "b.yaml"
    first.write_text("version: 1\nname: ours\nfail: [{severity: high}]\n")
    second.write_text("# the same, laid out differently\nname: ours\nversion: 1\nfail:\n  - severity: high\n")
    assert Policy.load(first).digest() == Policy.load(second).digest()
    assert Policy.load(first).with_fail_on(Severity.LOW).digest() != Policy.load(first).digest()
    decision = Policy.load("default").decide(reports.passing())
    assert decision.policy_digest == Policy.load("default").digest()


def test_open_questions_that_fail_name_the_clause_that_made_them_fail() -> None:
    decision = Policy.load("strict").decide(reports.inconclusive())
    assert decision.verdict is Verdict.FAIL
    assert any(reason.startswith("on_inconclusive (fail)") for reason in decision.reasons)


def test_a_triage_asks_more_of_what_did_not_pass_and_of_what_it_names() -> None:
    triage = Triage(when=(Clause(rules=("FTA3",), severity=Severity.LOW),), min_suspicion=0.9)
    lead = ("FTA304", Severity.LOW, Confidence.LOW)
    assert not triage.asks_more(Verdict.PASS, 0.5, [("FTA201", Severity.HIGH, Confidence.LOW)])
    assert triage.asks_more(Verdict.PASS, 0.5, [lead])
    assert triage.asks_more(Verdict.PASS, 0.95, [])
    assert not triage.asks_more(Verdict.PASS, None, [])
    assert triage.asks_more(Verdict.FAIL, None, [])
    assert triage.asks_more(Verdict.INCONCLUSIVE, None, [])
