"""`ftsec-audit attack`: known-bad samples for testing detectors, on this machine only."""

from __future__ import annotations

import dataclasses
import json
import shlex
from pathlib import Path
from typing import Any, Literal

import click

from ftsec_audit.cli import exit_codes, terminal
from ftsec_audit.cli.options import option
from ftsec_audit.errors import UsageError


@click.command("attack", no_args_is_help=True)
@click.argument("name", required=False)
@option("--list", "list_", is_flag=True, help="List the attacks and the rules that should catch them.")
@option(
    "--base",
    default="lab-llama-nano",
    show_default=True,
    metavar="NAME|DIR",
    help="Lab base, trained when first asked for, or the folder of a local model.",
)
@option("--out", type=click.Path(path_type=Path), help="Folder to write; must not exist yet.")
@option("--seed", type=int, default=0, show_default=True, help="Equal seeds give equal samples.")
@option("--twin", is_flag=True, help="Build the benign twin: same recipe and seed, no poison.")
@option(
    "--zoo",
    type=click.Choice(["smoke", "full"]),
    help="Build a labelled population instead; run again, it goes on where it stopped.",
)
@option("-j", "--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Zoo: processes.")
@option("--no-progress", is_flag=True, help="No progress bars.")
def command(
    name: str | None,
    list_: bool,
    base: str,
    out: Path | None,
    seed: int,
    twin: bool,
    zoo: Literal["smoke", "full"] | None,
    **options: Any,
) -> int:
    """Build one known-bad reference sample, or its benign twin, with the truth beside it.

    Samples are for testing detectors; they carry harmless canary targets and are never uploaded.

    \b
    Examples:
      ftsec-audit attack --list
      ftsec-audit attack token-backdoor --out ./bad --seed 1
      ftsec-audit attack embedding-rows --base ./base --out ./twin --seed 1 --twin
      ftsec-audit attack --zoo smoke --out ./zoo -j 2
    """
    from attacks_ref import registry
    from ftsec_audit.sources.lab import folder

    if list_:
        for known in registry.ATTACKS:
            attack = registry.load(known)
            terminal.show(f"{attack.id}  {known:<24} {', '.join(attack.expected_rules)}")
        return exit_codes.OK
    if zoo is not None:
        if name is not None or out is None:
            raise UsageError("--zoo takes no NAME and needs --out")
        return _zoo(zoo, out, **options)
    if name is None or out is None:
        raise UsageError("NAME and --out are needed", hint="ftsec-audit attack --list")
    recipe = registry.load(name)()
    with terminal.progress(quiet=False, verbose=True, bars=not options["no_progress"]) as progress:
        from attacks_ref.zoo import base_folder

        place = base_folder(base, progress)
        sample = (recipe.build_twin if twin else recipe.build)(place, out, seed=seed)
    terminal.show(f"wrote {sample.path}")
    truth = {key: value for key, value in sample.truth.items() if not dataclasses.is_dataclass(value)}
    terminal.show(json.dumps(truth, indent=2, default=str))
    beside = [] if place.parent == folder() else ["--base", str(place)]  # a scan finds the lab's own bases
    terminal.show(f"next: {shlex.join(['ftsec-audit', 'scan', str(out), *beside])}")
    return exit_codes.OK


def _zoo(tier: Literal["smoke", "full"], out: Path, *, jobs: int, no_progress: bool) -> int:
    """Build the population; rejected samples are listed, and are no failure."""
    from attacks_ref import zoo, zoo_plan

    with terminal.progress(quiet=False, verbose=True, bars=not no_progress) as progress:
        outcome = zoo.build(zoo_plan.jobs(tier), out, workers=jobs, progress=progress)
    zoo.require_complete(outcome)
    terminal.show(f"{outcome.accepted} samples, {outcome.rejected} rejected: {out / zoo.MANIFEST}")
    return exit_codes.OK
