"""`ftsec-audit report`: stored results rendered, merged or judged again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ftsec_audit.cli import exit_codes, terminal
from ftsec_audit.cli.options import output_options, policy_options
from ftsec_audit.cli.stored import from_store, stored_options
from ftsec_audit.errors import UsageError

if TYPE_CHECKING:
    from ftsec_audit.cli.verdicts import Judge
    from ftsec_audit.types import Report

_JUDGING = ("policy", "fail_on", "strict", "ignorefile", "baseline")


@click.command("report", no_args_is_help=True)
@click.argument("results", nargs=-1, metavar="[RESULT]...", type=click.Path(path_type=Path))
@stored_options
@policy_options
@output_options
def command(results: tuple[Path, ...], **options: Any) -> int:
    """Render, merge or judge again reports that were stored with -f json, -f jsonl, or by a batch.

    No weight is read. Without --policy, --fail-on, --strict, --ignorefile or --baseline the stored
    verdicts stand; with any of them every report is judged again, and a line on standard error says where
    that changed a verdict. Exit codes are those of scan.

    \b
    Examples:
      ftsec-audit report result.json -f html=report.html
      ftsec-audit report reports/*.json -f jsonl=all.jsonl         merge
      ftsec-audit report reports/*.json --policy strict            what if?
      ftsec-audit report --store results/ --rule FTA3              a line for each; -f for whole reports
      ftsec-audit report --store results/ --failed                 artifacts without a report
    """
    from ftsec_audit import stored_reports
    from ftsec_audit.cli.output import Destinations
    from ftsec_audit.cli.verdicts import Judge

    if options["store"]:
        if results:
            raise UsageError("files and a store are asked for at once", hint="keep one")
        return from_store(options)
    if not results:
        raise UsageError("nothing to report on", hint="name stored results, or --store DIR")
    reports = [report for path in results for report in stored_reports.load(path)]
    chosen = {name: options[name] for name in _JUDGING}
    judged = any(chosen.values())
    destinations = Destinations.of(
        options["outputs"], options["output"], several=len(reports) > 1, judged=judged
    )
    if judged:
        reports = [_what_if(report, Judge.of(**chosen)) for report in reports]
    for report in reports:
        destinations.write(report)
    codes = [exit_codes.of_verdict(r.verdict, exit_zero=options["exit_zero"]) for r in reports]
    if destinations.failures:
        codes.append(exit_codes.COULD_NOT_RUN)
    return exit_codes.worst(codes)


def _what_if(report: Report, judge: Judge) -> Report:
    """The report judged again; says so when the verdict is another one."""
    from ftsec_audit import api
    from ftsec_audit.report import phrases

    judged = api.judged(report, **judge.options())
    if judged.verdict is not report.verdict:
        before = f"{report.verdict.upper()} (policy {report.decision.policy})"
        after = f"{judged.verdict.upper()} (policy {judged.decision.policy})"
        name = phrases.short(report.artifact.resolved or report.artifact.reference)
        terminal.remark(f"{name}: {before} → {after}")
    return judged
