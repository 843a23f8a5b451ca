"""Several scans at once, in real processes: whose answer comes when, and what a lost one costs."""

from __future__ import annotations

from pathlib import Path

from builders.adapters import write_adapter
from builders.fates import Fate

import ftsec_audit as fa
from ftsec_audit.batch.in_order import Interrupted, answers
from ftsec_audit.contracts import Progress
from ftsec_audit.errors import SourceError

QUICK = fa.ScanOptions(profile="quick", required_signature=Fate(public_key=Path("unused")))


def asked(folder: Path, *names: str) -> list[tuple[str, fa.ScanOptions]]:
    return [(str(folder / name), QUICK) for name in names]


def test_answers_come_in_order_and_a_lost_worker_costs_its_own_target_only(tmp_path: Path) -> None:
    for name in ("first", "deadly", "last"):
        write_adapter(tmp_path / name)
    # What is absent is known at once, long before the first is scanned.
    first, absent, dead, last = answers(asked(tmp_path, "first", "absent", "deadly", "last"), 2, Progress())
    assert first == fa.scan(str(tmp_path / "first"), profile="quick")
    assert isinstance(last, fa.Report)
    assert last.artifact.reference == str(tmp_path / "last")
    assert isinstance(absent, SourceError)
    assert "absent" in str(absent)
    assert isinstance(dead, fa.FtsecError)
    assert "deadly" in str(dead)
    assert "SIGKILL" in str(dead)


def test_an_interrupt_leaves_what_is_done_and_says_what_is_not(tmp_path: Path) -> None:
    for name in ("endless", "done"):
        write_adapter(tmp_path / name)

    class Impatient(Progress):
        def advance(self, amount: int = 1) -> None:
            raise KeyboardInterrupt

    endless, done = answers(asked(tmp_path, "endless", "done"), 2, Impatient())
    assert isinstance(endless, Interrupted)
    assert "endless" in str(endless)
    assert isinstance(done, fa.Report)
