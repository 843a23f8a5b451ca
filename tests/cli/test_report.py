"""`ftsec-audit report`, and where reports are written."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from builders import reports

from ftsec_audit import api, cli


@pytest.fixture
def stored(tmp_path: Path) -> dict[str, Path]:
    """The three verdicts as JSON files."""
    paths = {}
    for make in (reports.passing, reports.failing, reports.inconclusive):
        paths[make.__name__] = tmp_path / f"{make.__name__}.json"
        paths[make.__name__].write_text(api.render(make(), "json"))
    return paths


@pytest.mark.parametrize(("name", "code"), [("passing", 0), ("failing", 1), ("inconclusive", 3)])
def test_the_exit_code_is_that_of_the_stored_verdict(stored, name: str, code: int, capsys) -> None:
    assert cli.run(["report", str(stored[name])]) == code
    assert reports.passing().rules[0].id not in capsys.readouterr().err


def test_the_most_decisive_of_several_counts(stored, capsys) -> None:
    assert cli.run(["report", str(stored["passing"]), str(stored["inconclusive"])]) == 3
    assert cli.run(["report", *map(str, stored.values())]) == 1
    assert cli.run(["report", *map(str, stored.values()), "--exit-zero"]) == 0


def test_json_survives_the_round_trip(stored, capsys) -> None:
    assert cli.run(["report", str(stored["failing"]), "-f", "json"]) == 1
    assert capsys.readouterr().out == stored["failing"].read_text()


def test_reports_are_judged_again_by_another_policy(stored, capsys) -> None:
    assert cli.run(["report", str(stored["failing"]), "--fail-on", "never"]) == 0
    assert cli.run(["report", str(stored["passing"]), "--policy", "strict"]) == 1
    assert "provenance.pinned_revision" in capsys.readouterr().out


def test_merging_writes_one_line_per_report(stored, tmp_path: Path, capsys) -> None:
    merged = tmp_path / "all.jsonl"
    assert cli.run(["report", *map(str, stored.values()), "-f", f"jsonl={merged}"]) == 1
    assert [json.loads(line)["verdict"] for line in merged.read_text().splitlines()] == [
        "pass",
        "fail",
        "inconclusive",
    ]
    assert cli.run(["report", str(merged)]) == 1


def test_formats_that_hold_one_report_go_to_a_folder(stored, tmp_path: Path, capsys) -> None:
    paths = [str(path) for path in stored.values()]
    assert cli.run(["report", *paths, "-f", f"json={tmp_path / 'all.json'}"]) == 2
    folder = tmp_path / "reports"
    assert cli.run(["report", *paths, "-f", "sarif", "-o", str(folder)]) == 1
    assert len(list(folder.glob("*.sarif"))) == 3


def test_the_table_is_shown_unless_standard_output_is_taken(stored, tmp_path: Path, capsys) -> None:
    path = str(stored["passing"])
    cli.run(["report", path, "-f", f"json={tmp_path / 'x.json'}"])
    assert "PASS" in capsys.readouterr().out
    cli.run(["report", path, "-f", "jsonl"])
    assert json.loads(capsys.readouterr().out)["verdict"] == "pass"


def test_without_a_format_o_writes_the_table(stored, tmp_path: Path, capsys) -> None:
    assert cli.run(["report", str(stored["passing"]), "-o", str(tmp_path / "out.txt")]) == 0
    assert "PASS" in (tmp_path / "out.txt").read_text()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize(("name", "code"), [("passing", 2), ("failing", 1)])
def test_a_full_disk_costs_the_file_and_not_the_findings(stored, name: str, code: int, capsys) -> None:
    assert cli.run(["report", str(stored[name]), "-f", "json=/dev/full"]) == code
    shown = capsys.readouterr()
    assert "/dev/full: the json report could not be written: No space left on device" in shown.err
    assert "acme" in shown.out or "mallory" in shown.out
    assert Path("/dev/full").is_char_device()


def test_a_report_is_replaced_whole_or_not_at_all(stored, tmp_path: Path, monkeypatch, capsys) -> None:
    target = tmp_path / "out.json"
    target.write_text("the old one")

    def full(self: Path, other: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    assert cli.run(["report", str(stored["passing"]), "-f", f"json={target}"]) == 2
    assert target.read_text() == "the old one"
    assert not list(tmp_path.glob(".*part"))


def test_a_folder_that_may_not_be_written_is_no_traceback(stored, capsys) -> None:
    assert cli.run(["report", str(stored["passing"]), "-f", "json=/proc/none/x.json"]) == 2
    assert "could not be written" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["", "{", "[]", '{"schema_version": "9.0"}', '{"schema_version": "1.0"}'])
def test_what_is_no_report_is_refused(tmp_path: Path, content: str, capsys) -> None:
    path = tmp_path / "x.json"
    path.write_text(content)
    assert cli.run(["report", str(path)]) == 2
    assert "x.json" in capsys.readouterr().err


def test_new_files_follow_the_umask(stored, tmp_path: Path, capsys) -> None:
    before = os.umask(0o027)
    try:
        cli.run(["report", str(stored["passing"]), "-f", f"json={tmp_path / 'x.json'}"])
    finally:
        os.umask(before)
    assert (tmp_path / "x.json").stat().st_mode & 0o777 == 0o640


def test_evidence_for_machines_says_when_only_if_it_was_judged_now(stored, monkeypatch, capsys) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1767323045")
    assert cli.run(["report", str(stored["passing"]), "-f", "intoto"]) == 0
    assert "timeCreated" not in capsys.readouterr().out
    assert cli.run(["report", str(stored["passing"]), "-f", "intoto", "--policy", "permissive"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[1]["predicate"]["timeCreated"] == "2026-01-02T03:04:05Z"


def test_a_format_that_cannot_be_written_does_not_hide_the_verdict(tmp_path: Path, capsys) -> None:
    report = reports.failing()
    card = replace(report.artifact, files=tuple(replace(file, digest="") for file in report.artifact.files))
    path = tmp_path / "no-digests.json"
    path.write_text(api.render(replace(report, artifact=card), "json"))
    assert cli.run(["report", str(path), "-f", f"intoto={tmp_path / 'x'}"]) == 1
    shown = capsys.readouterr()
    assert "FTA301" in shown.out
    assert "names files by digest" in shown.err


def test_bills_of_materials_get_a_file_each(stored, tmp_path: Path, capsys) -> None:
    paths = [str(path) for path in stored.values()]
    assert cli.run(["report", *paths, "-f", "cyclonedx"]) == 2
    cli.run(
        ["report", *paths, "-f", f"cyclonedx={tmp_path / 'boms'}/", "-f", f"intoto={tmp_path / 'all.jsonl'}"]
    )
    assert len(list((tmp_path / "boms").glob("*.cdx.json"))) == 3
    assert len((tmp_path / "all.jsonl").read_text().splitlines()) == 3
