"""`ftsec-audit policy`: is a policy right, and what does it say?"""

from __future__ import annotations

import click

from ftsec_audit.cli import terminal


@click.group("policy")
def command() -> None:
    """Work with policy files."""


@command.command("check", no_args_is_help=True)
@click.argument("source", metavar="FILE")
def check(source: str) -> None:
    """Check a policy file, or one of default, strict, permissive, and say what it does.

    Mistakes are listed with their lines; the exit code is then 2.

    \b
    Example:
      ftsec-audit policy check policy.yaml
    """
    from ftsec_audit.policy import Policy

    terminal.show("\n".join(_sentences(Policy.load(source))))


def _sentences(policy: object) -> list[str]:
    from ftsec_audit.policy import Policy

    assert isinstance(policy, Policy)
    lines = [f"policy {policy.name} is valid"]
    for requirement in policy.require:
        when = f" in profile {requirement.when.profile} and above" if requirement.when else ""
        lines.append(f"  requires an answer from every {requirement.rules} rule{when}")
    lines += [f"  fails on {clause}" for clause in policy.fail]
    lines += [f"  warns on {clause}" for clause in policy.warn]
    if policy.provenance.allowed_formats:
        lines.append(f"  fails on weights that are not {', '.join(policy.provenance.allowed_formats)}")
    if policy.provenance.pinned_revision:
        lines.append("  fails on a remote reference without a full commit")
    lines += [f"  counts {o.rule} as {o.severity}: {o.reason}" for o in policy.overrides]
    lines.append(f"  a missing answer makes the verdict {policy.on_inconclusive.upper()}")
    return lines
