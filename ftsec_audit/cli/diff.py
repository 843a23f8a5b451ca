"""`ftsec-audit diff`: what changed between revisions of a model, or between two reports."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ftsec_audit.cli import exit_codes, terminal
from ftsec_audit.cli.options import option
from ftsec_audit.errors import UsageError

if TYPE_CHECKING:
    from ftsec_audit.report_changes import ReportChanges
    from ftsec_audit.revisions import Step
    from ftsec_audit.types import Finding

_SHOWN = 12


@click.command("diff", no_args_is_help=True)
@click.argument("targets", nargs=-1, metavar="OLD NEW [NEWER]...")
@option("--json", "as_json", is_flag=True, help="As JSON, everything included.")
@option("--offline", is_flag=True, help="Use only what is on this machine already.")
@option("--no-progress", is_flag=True, help="No progress bars.")
def command(targets: tuple[str, ...], as_json: bool, offline: bool, no_progress: bool) -> int:
    """Say what changed between two revisions, along a series of them, or between two reports.

    Revisions are what scan takes: folders, org/model@rev, … Each step gives the files that changed, the
    tensors that moved and how far, beside the distance from the first revision. Two .json reports are
    compared by their findings. This is information, not a verdict: the exit code is 0.

    \b
    Examples:
      ftsec-audit diff org/model@v1 org/model@v2
      ftsec-audit diff ./step-100 ./step-200 ./step-300
      ftsec-audit diff before.json after.json
    """
    if len(targets) < 2:
        raise UsageError("a difference takes two", hint="ftsec-audit diff OLD NEW")
    reports = [Path(target).suffix == ".json" and Path(target).is_file() for target in targets]
    if any(reports):
        if not all(reports) or len(targets) > 2:
            raise UsageError("reports are compared two at a time, and with reports only")
        found: list[Any] = [_of_reports(Path(targets[0]), Path(targets[1]))]
        lines = _report_lines(found[0])
    else:
        with terminal.progress(quiet=False, verbose=False, bars=not no_progress) as progress:
            from ftsec_audit.revisions import steps
            from ftsec_audit.sources import resolve

            found = list(steps([resolve(t, offline=offline, progress=progress) for t in targets]))
        lines = (line for step in found for line in _step_lines(step))
    from ftsec_audit.report.json import plain

    terminal.show(json.dumps([plain(one) for one in found], indent=2) if as_json else "\n".join(lines))
    return exit_codes.OK


def _of_reports(old: Path, new: Path) -> ReportChanges:
    from ftsec_audit import stored_reports
    from ftsec_audit.report_changes import changes

    return changes(stored_reports.load(old)[0], stored_reports.load(new)[0])


def _step_lines(step: Step) -> Iterator[str]:
    yield from _shown(f"{step.old} → {step.new}")
    for name, files in (
        ("changed", step.files_changed),
        ("added", step.files_added),
        ("removed", step.files_removed),
    ):
        if files:
            yield from _shown(f"  files {name:<8} {_listed(files)}")
    if step.reason:
        yield from _shown(f"  weights not compared: {step.reason}")
        return
    counts = ", ".join(f"{n} {status}" for status, n in sorted(step.tensors.items())) or "none"
    yield f"  tensors        {counts}"
    yield f"  moved          {_ratio(step.relative)} of their norm; {_ratio(step.from_first)} from the first"
    for move in step.largest:
        yield from _shown(f"    {_ratio(move.relative):>9}  {move.name}")
    if step.unread:
        yield from _shown(f"  not compared   {_listed(step.unread)}")


def _report_lines(difference: ReportChanges) -> Iterator[str]:
    yield from _shown(f"{difference.old} → {difference.new}")
    yield f"  verdict        {difference.old_verdict} → {difference.new_verdict}"
    for name, findings in (("appeared", difference.appeared), ("disappeared", difference.disappeared)):
        for finding in findings:
            yield from _shown(f"  {name:<13}  {_finding(finding)}")
    for old, new in difference.reworded:
        yield from _shown(f"  changed        {_finding(old)}  →  {_finding(new)}")
    for old, new in difference.other_answers:
        yield from _shown(f"  answer         {new.rule}: {old.outcome} → {new.outcome} ({new.summary})")
    if not any((difference.appeared, difference.disappeared, difference.reworded, difference.other_answers)):
        yield "  no finding differs"


def _finding(finding: Finding) -> str:
    return f"{finding.rule} {finding.severity.upper()}/{finding.confidence} {finding.summary}"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _ratio(value: float | None) -> str:
    return "–" if value is None else f"{value:.2%}" if value < 10 else f"{value:.3g} ×"


def _shown(line: str) -> Iterator[str]:
    from ftsec_audit.report.escape import visible

    yield visible(line)
