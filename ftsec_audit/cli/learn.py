"""`ftsec-audit learn`: a score of one's own, fitted to labelled samples."""

from __future__ import annotations

import hashlib
from pathlib import Path

import click

from ftsec_audit.cli import exit_codes, terminal
from ftsec_audit.cli.options import option
from ftsec_audit.errors import UsageError


@click.command("learn", no_args_is_help=True)
@click.argument("records", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="Score to write (.onnx); its card is written beside it (.json).",
)
@option("--name", default="local", show_default=True, help="Name of the score, printed in findings.")
@option("--version", "version_", default="1", show_default=True, help="Version of the score.")
def command(records: Path, output: Path, name: str, version_: str) -> int:
    """Fit a score to the RECORDS that 'ftsec-audit validate' keeps of labelled samples.

    Features and regularisation are chosen with whole recipes left out, and what the score is worth is
    measured on recipes, and on attacks, that neither the fit nor the choice has seen. Both are written into
    the card, which a finding of FTA209 quotes. Use it with 'ftsec-audit scan --calibration SCORE.onnx'.

    \b
    Examples:
      ftsec-audit validate --zoo ./zoo --out ./validation --weights-only
      ftsec-audit learn ./validation/records.jsonl -o ours.onnx --name ours
    """
    from ftsec_audit.validate import records as kept
    from ftsec_audit.validate.learn import GROUPS, learn

    if output.suffix != ".onnx":
        raise UsageError("a score is written to a file that ends in .onnx", where=str(output))
    card = output.with_suffix(".json")
    if card.exists() and not output.exists():
        raise UsageError(
            "is there, and is no card of this score", where=str(card), hint="choose another name"
        )
    if not output.parent.is_dir():
        raise UsageError("no such folder", where=str(output.parent))
    digest = hashlib.sha256(records.read_bytes()).hexdigest()
    score = learn(kept.load(records), name=name, version=version_, digest=digest)
    score.save(output)
    terminal.show(
        f"wrote {output}: {score.choice}; {score.bad} known-bad, {len(score.benign)} benign samples"
    )
    for one in score.performance:
        (low, high), (least, most) = one.auroc_interval, one.tpr_interval
        terminal.show(
            f"leave one {one.left_out} out ({one.groups}): AUROC {one.auroc:.2f} [{low:.2f}, {high:.2f}], "
            f"TPR at 1 % false positives {one.tpr:.2f} [{least:.2f}, {most:.2f}]"
        )
    for kind in GROUPS.keys() - {one.left_out for one in score.performance}:
        terminal.show(f"leave one {kind} out: not measured, the records have too few of them")
    return exit_codes.OK
