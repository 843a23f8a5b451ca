"""What is kept of a scan is enough to score it again, and is read back as it was written."""

from __future__ import annotations

import gzip
from dataclasses import replace

import pytest
from builders.adapters import write_adapter, write_checkpoint

from ftsec_audit import api
from ftsec_audit.errors import UsageError
from ftsec_audit.types import Outcome
from ftsec_audit.validate import records as kept
from ftsec_audit.validate.examine import Examined
from ftsec_audit.validate.population import Located
from ftsec_audit.validate.scorers import every_score


@pytest.fixture(scope="module")
def examined(tmp_path_factory):
    folder = tmp_path_factory.mktemp("zoo")
    base = write_checkpoint(folder / "base")
    sample = Located(
        key="s",
        base_name="base",
        attack="demo",
        poisoned=True,
        recipe="r",
        job="j",
        stealth=(),
        seed=0,
        trigger=("no such word",),
        expected_rules=(),
        folder=write_adapter(folder / "adapter"),
        base=base,
    )
    report = api.scan(str(sample.folder), base=str(base), ignore=("FTA5", "FTA6", "FTA7"), cache=False)
    return Examined(sample=sample, report=report)


def test_a_record_holds_every_answer_and_the_numbers_behind_them(examined):
    one = kept.record(examined, "standard", "allow")
    assert {(f.rule, f.outcome) for f in one.findings} == {
        (f.rule, f.outcome) for f in examined.report.findings
    }
    assert one.comparable is not None and one.comparable.method == "lora"
    assert one.features and "85 % top direction" in one.statistics
    assert not one.trigger.named and one.trigger.rank is None


def test_records_are_read_back_as_they_were_written_and_score_the_same(examined, tmp_path):
    one = kept.record(examined, "standard", "allow")
    path = tmp_path / "records.jsonl"
    path.write_text(kept.dumps([one, replace(one, verdict=None, error="broken", findings=())]))
    zipped = tmp_path / "records.jsonl.gz"
    zipped.write_bytes(gzip.compress(path.read_bytes()))
    assert kept.load(zipped) == kept.load(path)
    again, broken = kept.load(path)
    assert kept.dumps([again, broken]) == path.read_text()
    assert [f.outcome for f in again.findings] == [
        f.outcome for f in sorted(one.findings, key=lambda f: f.rule)
    ]
    assert any(f.outcome is Outcome.NOT_SUPPORTED for f in again.findings)
    assert not broken.is_scanned
    by_name = {scored.name: scored.scores for scored in every_score([again])}
    assert by_name["adaptersentry"] == {"s": 0.0}
    assert by_name["verdict FAIL"] == {"s": 0.0}


@pytest.mark.parametrize("line", ['{"key": 1}', '{"sample": 3}', "[" * 100_000, "null"])
def test_another_file_is_a_clear_error(tmp_path, line):
    (tmp_path / "x.jsonl").write_text(line + "\n")
    with pytest.raises(UsageError, match="holds no records"):
        kept.load(tmp_path / "x.jsonl")
