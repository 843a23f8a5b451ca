"""The runner: one pass, every rule answered, nothing that happens inside a detector escapes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count
from types import SimpleNamespace
from typing import Any

import pytest
from builders.detectors import (
    BASE_RULE,
    DEEP_RULE,
    FILES_RULE,
    WEIGHTS_RULE,
    Deep,
    Files,
    NeedsBase,
    Weights,
    delta,
    rule,
    subject,
)

from ftsec_audit import runner
from ftsec_audit.contracts import ArtifactDetector, BehaviourDetector, Subject
from ftsec_audit.errors import BudgetExceeded, FormatError, NotApplicable, Unsupported
from ftsec_audit.measurement_cache import MeasurementCache
from ftsec_audit.session.budget import OutOfBudget
from ftsec_audit.types import Confidence, Finding, Lead, NotLookedAt, Outcome, Profile


def run(
    *detectors: Any, deltas: Any = (), profile: Profile = Profile.STANDARD, of: Any = None, **options: Any
):
    stream = deltas if callable(deltas) else lambda _: iter(deltas)
    calibration: Any = None
    return runner.run(of or subject(), detectors, calibration, profile=profile, stream=stream, **options)


def outcomes(audit: runner.Audit) -> dict[str, Outcome]:
    return {finding.rule: finding.outcome for finding in audit.findings}


def raising(error: BaseException):
    def answer(_: object) -> Iterator[Finding]:
        raise error
        yield

    return answer


def test_rules_that_were_not_even_given_are_on_record() -> None:
    audit = run(Files(), beyond={"FTA999": Profile.DEEP})
    assert audit.not_looked_at == (NotLookedAt(what="FTA999", reason="runs from profile deep on"),)


def test_every_answer_carries_the_label_of_its_detector() -> None:
    detector = Files()
    (finding,) = run(detector).findings
    assert finding.detector == detector.label
    assert "Files@1:" in finding.detector


def test_all_weight_detectors_share_one_pass() -> None:
    passes = count()

    def stream(_: Subject) -> Iterator[Any]:
        next(passes)
        yield from (delta("a"), delta("b", 99.0))

    @dataclass(frozen=True, kw_only=True)
    class Second(Weights):
        rules = (rule("FTA104"),)

        def judge(self, table, calibration):
            yield self.rules[0].not_detected("fine")

    audit = run(Weights(), Second(measured=lambda d: {"other": 2.0}), deltas=stream)
    assert next(passes) == 1
    assert outcomes(audit) == {"FTA103": Outcome.DETECTED, "FTA104": Outcome.NOT_DETECTED}
    assert [m.values for m in audit.measurements] == [
        {"value": 1.0, "other": 2.0},
        {"value": 99.0, "other": 2.0},
    ]


@pytest.mark.parametrize("error", [None, ZeroDivisionError("division by zero")])
def test_adapters_are_measured_on_one_thread_and_the_number_is_restored(error, monkeypatch) -> None:
    threads, seen = [7], []
    monkeypatch.setattr("torch.get_num_threads", lambda: threads[-1])
    monkeypatch.setattr("torch.set_num_threads", threads.append)

    def stream(_: Subject) -> Iterator[Any]:
        seen.append(threads[-1])
        yield delta("a")
        if error:
            raise error

    run(Weights(), deltas=stream)
    assert seen == [1]
    assert threads[-1] == 7


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (NotApplicable("an adapter has none"), Outcome.NOT_APPLICABLE),
        (Unsupported("not read here"), Outcome.NOT_SUPPORTED),
        (FormatError("is cut short", where="a.bin"), Outcome.ERROR),
        (BudgetExceeded("too many members"), Outcome.ERROR),
        (ZeroDivisionError("division by zero"), Outcome.ERROR),
        (RecursionError("too deep"), Outcome.ERROR),
        (MemoryError(), Outcome.ERROR),
    ],
)
def test_what_a_detector_raises_becomes_its_outcome_and_the_scan_goes_on(error, outcome) -> None:
    audit = run(Files(answer=raising(error)), Weights(), deltas=[delta("a")])
    assert outcomes(audit) == {"FTA401": outcome, "FTA103": Outcome.NOT_DETECTED}


def test_an_unexpected_error_names_its_type_and_detector() -> None:
    (finding,) = run(Files(answer=raising(KeyError("x" * 10_000)))).findings
    assert "KeyError in Files" in finding.summary
    assert len(finding.summary) <= 300


def test_what_was_found_before_an_error_is_kept() -> None:
    def answer(_: Subject) -> Iterator[Finding]:
        yield FILES_RULE.detected("code", confidence="high", evidence=())
        raise FormatError("is cut short")

    assert outcomes(run(Files(answer=answer))) == {"FTA401": Outcome.DETECTED}


def test_a_silent_detector_is_an_error_not_a_pass() -> None:
    assert outcomes(run(Files(answer=lambda _: []))) == {"FTA401": Outcome.ERROR}


def test_an_answer_to_a_foreign_rule_is_an_error() -> None:
    audit = run(Files(answer=lambda _: [WEIGHTS_RULE.not_detected("fine")]))
    assert outcomes(audit) == {"FTA401": Outcome.ERROR}
    assert "FTA103, which is not one of its rules" in audit.findings[0].summary


def test_one_tensor_that_fails_does_not_cost_the_others() -> None:
    def measured(d: Any) -> dict[str, float]:
        if d.name == "b":
            raise ValueError("NaN")
        return {"value": d.value}

    clean = run(Weights(measured=measured), deltas=[delta("a"), delta("b"), delta("c")])
    assert outcomes(clean) == {"FTA103": Outcome.ERROR}, "a clean answer over a part is no answer"
    assert "1 of 3 modules not measured, e.g. b: ValueError: NaN" in clean.findings[0].summary
    dirty = run(Weights(measured=measured), deltas=[delta("a", 99.0), delta("b")])
    assert outcomes(dirty) == {"FTA103": Outcome.DETECTED}, "a detection stands"


def test_tensors_to_which_a_statistic_does_not_apply_are_no_gap() -> None:
    def measured(d: Any) -> dict[str, float]:
        if d.name == "norm":
            raise NotApplicable("a vector has no spectrum")
        return {"value": d.value}

    assert outcomes(run(Weights(measured=measured), deltas=[delta("a"), delta("norm")])) == {
        "FTA103": Outcome.NOT_DETECTED
    }


@pytest.mark.parametrize("error", [FormatError("header is cut short"), RuntimeError("boom")])
def test_a_stream_that_breaks_leaves_no_clean_answer(error) -> None:
    def stream(_: Subject) -> Iterator[Any]:
        yield delta("a")
        raise error

    audit = run(Weights(), Files(), deltas=stream)
    assert outcomes(audit) == {"FTA103": Outcome.ERROR, "FTA401": Outcome.NOT_DETECTED}
    assert [m.name for m in audit.measurements] == ["a"]


def test_without_a_base_the_rules_that_need_one_say_why() -> None:
    audit = run(NeedsBase(), Files())
    finding = next(f for f in audit.findings if f.rule == BASE_RULE.id)
    assert (finding.outcome, finding.summary) == (Outcome.NOT_SUPPORTED, "none was declared")
    assert outcomes(run(NeedsBase(), of=subject(base=True)))["FTA301"] is Outcome.NOT_DETECTED


@pytest.mark.parametrize("speaks", [False, True])
def test_the_quick_profile_does_not_ask_what_needs_a_base(speaks: bool) -> None:
    @dataclass(frozen=True, kw_only=True)
    class Chatty(NeedsBase):
        def inspect(self, subject: Subject):
            if speaks:
                yield BASE_RULE.not_supported("no base")

    audit = run(Chatty(), profile=Profile.QUICK)
    assert audit.findings == ()
    (entry,) = audit.not_looked_at
    assert entry.what == "FTA301"
    assert not entry.incomplete


def test_the_quick_profile_with_a_base_does_ask() -> None:
    audit = run(NeedsBase(), profile=Profile.QUICK, of=subject(base=True))
    assert outcomes(audit) == {"FTA301": Outcome.NOT_DETECTED}


def test_a_detector_above_the_profile_is_listed() -> None:
    audit = run(Deep())
    assert audit.findings == ()
    assert audit.not_looked_at == (NotLookedAt(what=DEEP_RULE.id, reason="runs from profile deep on"),)
    assert outcomes(run(Deep(), profile=Profile.DEEP)) == {"FTA501": Outcome.NOT_DETECTED}


def test_deselected_rules_are_not_asked_and_say_so() -> None:
    audit = run(Files(answer=raising(AssertionError("asked"))), Weights(), deselected=frozenset({"FTA401"}))
    assert outcomes(audit) == {"FTA103": Outcome.NOT_DETECTED, "FTA401": Outcome.NOT_SUPPORTED}


@pytest.mark.parametrize("where", ["inspect", "stream", "measure"])
def test_ctrl_c_keeps_what_was_found(where: str) -> None:
    def stream(_: Subject) -> Iterator[Any]:
        yield delta("a")
        if where == "stream":
            raise KeyboardInterrupt
        yield delta("b")

    def measured(d: Any) -> dict[str, float]:
        if where == "measure" and d.name == "b":
            raise KeyboardInterrupt
        return {"value": d.value}

    @dataclass(frozen=True, kw_only=True)
    class Late(ArtifactDetector):
        rules = (rule("FTA402"),)

        def inspect(self, subject: Subject):
            if where == "inspect":
                raise KeyboardInterrupt
            yield self.rules[0].not_detected("fine")

    found = Files(answer=lambda _: [FILES_RULE.detected("code", confidence="high", evidence=())])
    audit = run(found, Late(), Weights(measured=measured), deltas=stream)
    assert outcomes(audit)["FTA401"] is Outcome.DETECTED
    assert outcomes(audit)["FTA103"] is Outcome.NOT_SUPPORTED
    assert (
        NotLookedAt(what="the rest of the scan", reason=runner.INTERRUPTED, incomplete=True)
        in audit.not_looked_at
    )


def test_the_time_budget_ends_the_scan_honestly() -> None:
    audit = run(Files(), Weights(), deltas=[delta("a")], max_seconds=-1.0)
    assert set(outcomes(audit).values()) == {Outcome.NOT_SUPPORTED}
    assert any(entry.incomplete and "time budget" in entry.reason for entry in audit.not_looked_at)


def test_the_order_depends_on_the_answers_alone() -> None:
    leads = [Lead(kind="token", value=v, score=s) for v, s in (("b", 1.0), ("a", 1.0), ("c", 2.0))]
    one = run(Files(answer=lambda _: [*leads, FILES_RULE.not_detected("x")]), Weights(), deltas=[delta("a")])
    other = run(
        Weights(), Files(answer=lambda _: [FILES_RULE.not_detected("x"), *leads[::-1]]), deltas=[delta("a")]
    )
    strip = [(f.rule, f.outcome, f.summary) for f in one.findings]
    assert strip == [(f.rule, f.outcome, f.summary) for f in other.findings]
    assert [lead.value for lead in one.leads] == ["c", "a", "b"] == [lead.value for lead in other.leads]


class TestCache:
    @staticmethod
    def stream(values: dict[str, float], passes: list[int]):
        def deltas(_: Subject) -> Iterator[Any]:
            passes.append(1)
            yield from (delta(name, value) for name, value in values.items())

        return deltas

    def test_the_same_bytes_are_measured_once(self, tmp_path) -> None:
        cache, passes = MeasurementCache(tmp_path), []
        stream = self.stream({"a": 1.0, "b": float("nan")}, passes)
        first = run(Weights(), deltas=stream, cache=cache)
        second = run(Weights(), deltas=stream, cache=cache)
        assert passes == [1]
        assert first.findings == second.findings
        assert repr(first.measurements) == repr(second.measurements)

    def test_other_hyper_parameters_that_touch_measure_measure_again(self, tmp_path) -> None:
        cache, passes = MeasurementCache(tmp_path), []
        stream = self.stream({"a": 1.0}, passes)
        run(Weights(threshold=10.0), deltas=stream, cache=cache)
        run(Weights(threshold=0.5), deltas=stream, cache=cache)
        run(Weights(threshold=0.5), deltas=stream, cache=cache, of=subject(digest="sha256:cc"))
        run(Weights(threshold=0.5), deltas=stream, cache=cache, of=subject(base=True))
        assert len(passes) == 4

    def test_an_artifact_whose_digest_does_not_cover_every_byte_is_never_cached(self, tmp_path) -> None:
        cache, passes = MeasurementCache(tmp_path), []
        for _ in range(2):
            run(
                Weights(),
                deltas=self.stream({"a": 1.0}, passes),
                cache=cache,
                of=subject(digest="sha256-outline:aa"),
            )
        assert len(passes) == 2

    def test_an_incomplete_pass_is_not_cached(self, tmp_path) -> None:
        cache = MeasurementCache(tmp_path)

        def broken(_: Subject) -> Iterator[Any]:
            yield delta("a")
            raise FormatError("cut short")

        run(Weights(), deltas=broken, cache=cache)
        assert cache.contents().entries == 0


PROBE_RULE = rule("FTA599", needs_base=True)


@dataclass(frozen=True, kw_only=True)
class Probe(BehaviourDetector):
    rules = (PROBE_RULE,)
    answer: Any = lambda session, base, leads: [
        PROBE_RULE.not_detected(f"{session} {base} {len(leads)} leads")
    ]

    def probe(self, session: Any, base: Any, leads: Any) -> Iterator[Any]:
        yield from self.answer(session, base, leads)


@contextmanager
def opened(seconds: float | None) -> Iterator[Any]:
    yield SimpleNamespace(subject="subject", base="base")


def with_base() -> Subject:
    return replace(subject(), base=subject().artifact)


def test_probes_come_last_and_get_both_models_and_the_leads() -> None:
    lead = Lead(kind="token", value="x")
    files = Files(answer=lambda _: [lead, FILES_RULE.not_detected("fine")])
    audit = run(Probe(), files, of=with_base(), sessions=opened)
    assert "subject base 1 leads" in {finding.summary for finding in audit.findings}


def test_what_holds_code_is_not_loaded() -> None:
    found = FILES_RULE.detected("runs code", confidence=Confidence.HIGH, evidence=[])
    never = opening_raises(AssertionError("loaded"))
    audit = run(Probe(), Files(answer=lambda _: [found]), of=with_base(), sessions=never)
    (finding,) = [finding for finding in audit.findings if finding.rule == "FTA599"]
    assert finding.outcome is Outcome.NOT_SUPPORTED
    assert "FTA401" in finding.summary


def test_without_a_base_no_model_is_opened() -> None:
    audit = run(Probe(), sessions=opening_raises(AssertionError("loaded")))
    assert outcomes(audit) == {"FTA599": Outcome.NOT_SUPPORTED}


def opening_raises(error: BaseException) -> Any:
    @contextmanager
    def open_it(_: float | None) -> Iterator[Any]:
        raise error
        yield

    return open_it


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (Unsupported("too large"), Outcome.NOT_SUPPORTED),
        (NotApplicable("no model"), Outcome.NOT_APPLICABLE),
        (RuntimeError("a bug"), Outcome.ERROR),
    ],
)
def test_a_model_that_cannot_be_opened_is_an_outcome(error: Exception, outcome: Outcome) -> None:
    audit = run(Probe(), of=with_base(), sessions=opening_raises(error))
    assert outcomes(audit) == {"FTA599": outcome}


def test_a_probe_that_runs_out_of_tokens_leaves_its_question_open() -> None:
    audit = run(
        Probe(answer=lambda *_: raising(OutOfBudget("used up"))(None)), of=with_base(), sessions=opened
    )
    assert outcomes(audit) == {"FTA599": Outcome.NOT_SUPPORTED}


def test_the_quick_profile_does_not_probe() -> None:
    audit = run(Probe(), of=with_base(), profile=Profile.QUICK, sessions=opening_raises(AssertionError()))
    assert not audit.findings
    assert [entry.what for entry in audit.not_looked_at] == ["FTA599"]
