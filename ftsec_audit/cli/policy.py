"""`ftsec-audit policy`: is a policy right, what does it say, and what did it make of a report?"""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ftsec_audit.cli import exit_codes, terminal
from ftsec_audit.errors import UsageError
from ftsec_audit.report.escape import visible

if TYPE_CHECKING:
    from ftsec_audit.types import Decision


@click.group("policy")
def command() -> None:
    """Work with policy files. The shipped ones are default, strict and permissive."""


@command.command("check", no_args_is_help=True)
@click.argument("sources", metavar="FILE...", nargs=-1, required=True)
def check(sources: tuple[str, ...]) -> int:
    """Check policy files, or shipped policies by name.

    Every mistake is listed with its line, and so is every clause that names a rule which does not exist;
    the exit code is then 2. A waiver that has expired is listed and is no mistake.

    \b
    Example:
      ftsec-audit policy check policy.yaml
    """
    codes = [exit_codes.OK]
    for source in sources:
        try:
            terminal.show(f"policy {_checked(source)} is valid")
        except UsageError as error:
            terminal.complain(str(error))
            codes.append(exit_codes.COULD_NOT_RUN)
    return exit_codes.worst(codes)


@command.command("explain", no_args_is_help=True)
@click.argument("source", metavar="FILE")
@click.option(
    "--on",
    "results",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A stored report (-f json, -f jsonl): show what each clause makes of it.",
)
def explain(source: str, results: Path | None) -> int:
    """Say what a policy does, clause by clause, with the line of each.

    With --on it also says what each clause makes of a stored report, and the exit code is that of the
    verdict. No weight is read.

    \b
    Examples:
      ftsec-audit policy explain strict
      ftsec-audit policy explain policy.yaml --on report.json
    """
    if results is None:
        terminal.show("\n".join(_explained(source)))
        return exit_codes.OK
    from ftsec_audit import api, stored_reports
    from ftsec_audit.policy import Policy

    codes = []
    for report in stored_reports.load(results):
        judged = api.judged(report, Policy.load(source))
        name = judged.artifact.resolved or judged.artifact.reference
        terminal.show(f"{visible(name)}: {judged.verdict.upper()}")
        terminal.show("\n".join(_explained(source, judged.decision)))
        codes.append(exit_codes.of_verdict(judged.verdict))
    return exit_codes.worst(codes)


def _checked(source: str) -> str:
    """The name of a policy that is right; raises UsageError with the lines that are not."""
    from ftsec_audit import api, policy_account
    from ftsec_audit.policy import Policy

    policy, lines = Policy.load(source), policy_account.lines(source)
    wrong = [
        f"line {lines[account.clause]}: {account.clause}: no rule is called {', '.join(account.rules)}…"
        for account in policy_account.unknown_rules(policy, api.rules())
    ]
    if wrong:
        raise UsageError("; ".join(wrong), where=source, hint="ftsec-audit rules lists them")
    for name in policy_account.expired(policy, date.today()):
        terminal.remark(f"{source}: line {lines[name]}: {name} has expired and has no effect")
    return policy.name


def _explained(source: str, decision: Decision | None = None) -> list[str]:
    from ftsec_audit import policy_account
    from ftsec_audit.policy import Policy

    policy, lines = Policy.load(source), policy_account.lines(source)
    shown = [f"policy {policy.name} ({Policy.path_of(source)}), judged from the top:"]
    for account in policy_account.clauses(policy):
        at = f"line {lines[account.clause]}" if account.clause in lines else ""
        shown.append(f"  {account.clause:<27} {at:<8} {account.says}")
        if decision is not None:
            made = policy_account.made_of(account, decision)
            shown += [f"      → {visible(text)}" for text in made] or ["      → nothing"]
    return shown
