"""`ftsec-audit validate`: every claim about the detectors, measured on known-bad and benign samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import click

from ftsec_audit.cli import exit_codes, terminal
from ftsec_audit.cli.options import option


@click.command("validate", no_args_is_help=True)
@option(
    "--zoo",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="Folder of 'ftsec-audit attack --zoo'; made, or completed, when --tier is given.",
)
@option("--tier", type=click.Choice(["smoke", "full"]), help="Build the samples of this tier first.")
@option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="Folder for the stored reports, records.jsonl, matrix.jsonl, matrix.md and matrix.html.",
)
@option(
    "--profile",
    type=click.Choice(["quick", "standard", "deep"]),
    default="standard",
    show_default=True,
    help="Profile of the scans.",
)
@option("--weights-only", is_flag=True, help="Load no model: leave the rules FTA5xx to FTA7xx out.")
@option(
    "--adaptersentry",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="Its executable, to have that scanner judge the same samples.",
)
@option("-j", "--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Processes.")
@option("--no-progress", is_flag=True, help="No progress bars.")
def command(zoo: Path, tier: Literal["smoke", "full"] | None, out: Path, **options: Any) -> int:
    """Scan a labelled population and say how well each rule, each score and the verdict separate it.

    Attacks × disguises × bases × scores, with counts and 95 % intervals; scores that are fitted leave a
    whole recipe, attack or base out. Everything is resumable: samples and reports that exist are kept.

    \b
    Examples:
      ftsec-audit validate --zoo ./zoo --tier smoke --out ./validation -j 2
      ftsec-audit validate --zoo ./zoo --out ./validation --weights-only
    """
    from ftsec_audit import atomic_file
    from ftsec_audit.validate import BEHAVIOUR, document, evaluate, measure
    from ftsec_audit.validate import records as kept

    with terminal.progress(quiet=False, verbose=True, bars=not options["no_progress"]) as progress:
        if tier is not None:
            from attacks_ref import zoo as building
            from attacks_ref import zoo_plan

            outcome = building.build(zoo_plan.jobs(tier), zoo, workers=options["jobs"], progress=progress)
            building.require_complete(outcome)
        records = measure(
            zoo,
            out / "reports",
            profile=options["profile"],
            ignore=BEHAVIOUR if options["weights_only"] else (),
            workers=options["jobs"],
            adaptersentry=options["adaptersentry"],
            progress=progress,
        )
    atomic_file.write(out / "records.jsonl", kept.dumps(records))
    matrix = evaluate(kept.load(out / "records.jsonl"))  # rounded: what is shown can be computed again
    text = document.markdown(matrix)
    for name, content in (
        ("matrix.jsonl", document.jsonl(matrix)),
        ("matrix.md", text),
        ("matrix.html", document.heat_map(matrix)),
    ):
        atomic_file.write(out / name, content)
    terminal.show(text)
    return exit_codes.COULD_NOT_RUN if matrix.failures else exit_codes.OK
