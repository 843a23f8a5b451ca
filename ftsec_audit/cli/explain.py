"""`ftsec-audit explain`: the page of one rule."""

from __future__ import annotations

from itertools import groupby

import click

from ftsec_audit import api
from ftsec_audit.cli import terminal


@click.command("explain", no_args_is_help=True)
@click.argument("rule_id", metavar="ID")
def command(rule_id: str) -> None:
    """Explain one rule: the question, how it is answered, and when the answer misleads.

    \b
    Example:
      ftsec-audit explain FTA301
    """
    page = api.explain(rule_id)
    rule = page.rule
    lines = [f"{rule.id} {rule.name}   {rule.severity.upper()}   family {rule.family}", "", rule.question, ""]
    lines += [page.page, "", f"What to do: {rule.remediation}", "", f"Answered by {page.detector}."]
    lines += ["It needs the base model."] if rule.needs_base else []
    for taxonomy, entries in groupby(page.references, key=lambda reference: reference.taxonomy):
        lines.append(f"{taxonomy}: " + "; ".join(f"{entry.id} {entry.name}" for entry in entries))
    terminal.show("\n".join(lines))
