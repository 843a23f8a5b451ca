"""`ftsec-audit attack`: known-bad samples for testing detectors, on this machine only."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import click

from ftsec_audit.cli import terminal
from ftsec_audit.cli.options import option
from ftsec_audit.errors import UsageError


@click.command("attack", no_args_is_help=True)
@click.argument("name", required=False)
@option("--list", "list_", is_flag=True, help="List the attacks and the rules that should catch them.")
@option("--base", type=click.Path(path_type=Path, exists=True, file_okay=False), help="Base model folder.")
@option("--out", type=click.Path(path_type=Path), help="Folder to write; must not exist yet.")
@option("--seed", type=int, default=0, show_default=True, help="Equal seeds give equal samples.")
@option("--twin", is_flag=True, help="Build the benign twin: same recipe and seed, no poison.")
def command(
    name: str | None, list_: bool, base: Path | None, out: Path | None, seed: int, twin: bool
) -> None:
    """Build one known-bad reference sample, or its benign twin, with the truth beside it.

    Samples are for testing detectors; they carry harmless canary targets and are never uploaded.

    \b
    Examples:
      ftsec-audit attack --list
      ftsec-audit attack embedding-rows --base ./base --out ./bad --seed 1
      ftsec-audit attack embedding-rows --base ./base --out ./twin --seed 1 --twin
    """
    from attacks_ref import registry

    if list_:
        for known in registry.ATTACKS:
            attack = registry.load(known)
            terminal.show(f"{attack.id}  {known:<24} {', '.join(attack.expected_rules)}")
        return
    if name is None or base is None or out is None:
        raise UsageError("NAME, --base and --out are needed", hint="ftsec-audit attack --list")
    attack = registry.load(name)
    recipe = attack()
    sample = (recipe.build_twin if twin else recipe.build)(base, out, seed=seed)
    terminal.show(f"wrote {sample.path}")
    truth = {key: value for key, value in sample.truth.items() if not dataclasses.is_dataclass(value)}
    terminal.show(json.dumps(truth, indent=2, default=str))
