"""Suspicion: for ranking, from p-values and exact facts."""

from __future__ import annotations

import math

import pytest
from builders.detectors import rule

from ftsec_audit.fusion import suspicion
from ftsec_audit.types import Confidence, Severity, Suspicion

CLEAN = rule("FTA201").not_detected("x", p_value=0.5)


def test_without_a_p_value_there_is_no_suspicion() -> None:
    assert suspicion([rule("FTA401").not_detected("x"), rule("FTA101").not_supported("x")]) == Suspicion()


def test_one_p_value_is_passed_through() -> None:
    result = suspicion([rule("FTA201").not_detected("x", p_value=0.004)])
    assert result.total == pytest.approx(0.996)
    assert result.families == {"spectral": pytest.approx(0.996)}


def test_families_are_fused_first() -> None:
    findings = [CLEAN] * 50 + [
        rule("FTA301").detected("x", confidence=Confidence.MEDIUM, evidence=(), p_value=1e-4)
    ]
    result = suspicion(findings)
    assert set(result.families) == {"spectral", "embedding"}
    assert result.total is not None
    assert result.total > 0.999, "fifty ordinary answers of another family must not drown it"


def test_a_severe_exact_fact_is_as_suspicious_as_can_be() -> None:
    code = rule("FTA401", severity=Severity.CRITICAL).detected("x", confidence=Confidence.HIGH, evidence=())
    no_op = rule("FTA104", severity=Severity.LOW).detected("x", confidence=Confidence.HIGH, evidence=())
    assert suspicion([CLEAN, code]).total == 1.0
    assert suspicion([CLEAN, no_op]).families == {"spectral": pytest.approx(0.5)}


def test_a_p_value_that_is_no_number_is_left_out() -> None:
    assert suspicion([rule("FTA201").not_detected("x", p_value=math.nan)]) == Suspicion()
