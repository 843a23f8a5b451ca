"""`ftsec-audit verify`: admit an artifact by signed evidence, without scanning it again."""

from __future__ import annotations

from pathlib import Path

import click

from ftsec_audit.cli import exit_codes, terminal
from ftsec_audit.cli.options import option


@click.command("verify", no_args_is_help=True)
@click.argument("evidence", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.argument("target")
@option(
    "--public-key",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="PEM file of the key that evidence has to be signed with.",
)
@option(
    "--signature",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The signature.  [default: EVIDENCE with .sig appended]",
)
@option(
    "--property",
    "properties",
    multiple=True,
    metavar="NAME",
    help="What the evidence must claim, repeatable.  [default: FTSEC_AUDIT_POLICY_PASSED]",
)
def command(
    evidence: Path, target: str, public_key: Path, signature: Path | None, properties: tuple[str, ...]
) -> int:
    """Admit TARGET if signed EVIDENCE of an earlier scan says that exactly these files passed.

    EVIDENCE is what scan wrote with -f intoto=PATH --sign-key KEY. Every file of TARGET is hashed; a file
    that was added, changed or removed since is an objection. Nothing is scanned.

    \b
    Examples:
      ftsec-audit scan ./adapter -f intoto=passed.jsonl --sign-key key.pem
      ftsec-audit verify passed.jsonl ./adapter --public-key key.pub

    \b
    Exit codes: 0 admitted · 1 not admitted · 2 could not be verified
    """
    from ftsec_audit import admission, signing
    from ftsec_audit.sources import resolve

    beside = signature or evidence.with_name(evidence.name + signing.SUFFIX)
    wanted = properties or (admission.PASSED,)
    try:
        found = admission.objections(evidence, beside, public_key, resolve(target), wanted)
    except signing.SignatureRefused as error:
        found = (str(error),)
    for objection in found:
        terminal.complain(objection)
    if found:
        return exit_codes.FAILED
    terminal.show(f"admitted: {len(wanted)} claimed, every file as it was scanned")
    return exit_codes.OK
