"""`ftsec-audit rules`: what is asked of a model."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from ftsec_audit import api
from ftsec_audit.cli import terminal
from ftsec_audit.cli.options import option
from ftsec_audit.taxonomy import references


@click.command("rules")
@click.argument("prefixes", nargs=-1, metavar="[ID]...")
@option("--json", "as_json", is_flag=True, help="As JSON, with questions, remedies and taxonomy ids.")
def command(prefixes: tuple[str, ...], as_json: bool) -> None:
    """List the rules: id, severity, name, question.

    \b
    Examples:
      ftsec-audit rules
      ftsec-audit rules FTA4
      ftsec-audit rules --json
    """
    wanted = tuple(prefix.upper() for prefix in prefixes)
    found = [rule for rule in api.rules() if not wanted or rule.id.startswith(wanted)]
    if as_json:
        records = [{**asdict(rule), "family": rule.family, "references": _ids(rule.id)} for rule in found]
        terminal.show(json.dumps(records, indent=2))
        return
    width = max((len(rule.name) for rule in found), default=0)
    for rule in found:
        needs = "  (needs the base)" if rule.needs_base else ""
        terminal.show(f"{rule.id}  {rule.severity.upper():<8}  {rule.name:<{width}}  {rule.question}{needs}")


def _ids(rule: str) -> list[str]:
    return [reference.id for reference in references(rule)]
