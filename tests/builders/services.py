"""A store with known reports for the service to show, and the secrets it is asked with."""

from __future__ import annotations

from dataclasses import replace

from builders import reports

from ftsec_audit.batch.job import Failure, FailureKind
from ftsec_audit.batch.record import Record
from ftsec_audit.batch.store import Store
from ftsec_audit.types import Report

TOKEN = "a-token-of-the-tests"
HUB_SECRET = "a-secret-of-the-hub"
MLFLOW_SECRET = "a-secret-of-mlflow"


def fill(store: Store) -> None:
    """Documents 1 to 6: two versions of `acme/bot`, undecided, hostile, a failure, a folder."""
    better = reports.passing()
    put(store, 1, _named(reports.failing(), "acme/bot", "1"), scanned_at="2026-01-01T00:00:00Z")
    put(store, 2, _named(better, "acme/bot", "2"), scanned_at="2026-01-02T00:00:00Z")
    put(store, 3, _named(reports.inconclusive(), "someone/model", "3"), scanned_at="2026-01-03T00:00:00Z")
    put(store, 4, reports.hostile(), reference=reports.ATTACK, scanned_at="2026-01-04T00:00:00Z")
    put(store, 5, None, reference="hf://acme/<script>alert(9)</script>", scanned_at="2026-01-05T00:00:00Z")
    put(store, 6, better, reference="/models/mine", scanned_at="2026-01-06T00:00:00Z")


def put(store: Store, number: int, report: Report | None, **values: object) -> None:
    failure = None if report else Failure(kind=FailureKind.CRASH, reason="<img src=x onerror=alert(8)>")
    common = {"key": key(number), "reference": f"org/m{number}", "report": report, "failure": failure}
    store.put(Record(**common | {"attempt": 0 if report else 1} | values))  # type: ignore[arg-type]


def key(number: int) -> str:
    return f"{number:064x}"


def _named(report: Report, name: str, digit: str) -> Report:
    return replace(report, artifact=replace(report.artifact, resolved=f"{name}@{digit * 40}"))
