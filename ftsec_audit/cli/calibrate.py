"""`ftsec-audit calibrate`: what benign looks like, measured on artifacts of one's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ftsec_audit.cli import exit_codes, terminal
from ftsec_audit.cli.options import option
from ftsec_audit.errors import UsageError

if TYPE_CHECKING:
    from ftsec_audit.calibration.pack import Provenance

_ORIGIN = {
    "repo": "repository",
    "commit": "commit",
    "path": "path",
    "sha256": "sha256",
    "licence": "licence",
    "base": "base",
}
"""Key of a manifest → field of a provenance."""


@click.command("calibrate", no_args_is_help=True)
@click.argument("targets", nargs=-1, metavar="[TARGET]...")
@option(
    "--manifest",
    type=click.Path(path_type=Path, dir_okay=False),
    help="JSON list of artifacts: dir (relative to this file), repo, commit, path, sha256, licence, base.",
)
@option(
    "-o", "--output", type=click.Path(path_type=Path), required=True, help="Pack to write (.json, .json.gz)."
)
@option("--name", default="local", show_default=True, help="Name of the pack, printed in findings.")
@option("--version", "version_", default="1", show_default=True, help="Version of the pack.")
@option("--description", default="", help="One line on what these artifacts are.")
@option(
    "--extend",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Pack whose entries are kept; of the same file the new measurement counts.",
)
@option("--offline", is_flag=True, help="Use only what is on this machine already.")
@option("--no-progress", is_flag=True, help="No progress bars.")
def command(
    targets: tuple[str, ...], manifest: Path | None, output: Path, extend: Path | None, **options: Any
) -> int:
    """Build a calibration pack from artifacts that are known to be benign.

    A pack holds statistics and origins, never weights. Artifacts of one repository share one vote, so
    tell repositories apart with --manifest when several artifacts come from the same one. Use the pack
    with 'ftsec-audit scan --calibration PACK'.

    \b
    Examples:
      ftsec-audit calibrate ./ours/* -o ours.json.gz --name ours
      ftsec-audit calibrate --manifest adapters/manifest.json -o pack.json.gz
      ftsec-audit calibrate ./new -o ours.json.gz --name ours --version 2 --extend ours.json.gz
    """
    from ftsec_audit import api
    from ftsec_audit.calibration.pack import Pack

    benign = [(target, None) for target in targets] + (_listed(manifest) if manifest else [])
    if not benign:
        raise UsageError("nothing to calibrate with", hint="name a TARGET or a --manifest")
    earlier = Pack.load(extend) if extend else None
    with terminal.progress(quiet=False, verbose=False, bars=not options["no_progress"]) as progress:
        built = api.calibrate(
            benign,
            name=options["name"],
            version=options["version_"],
            description=options["description"],
            offline=options["offline"],
            progress=progress,
        )
    for entry in built.left_out:
        terminal.remark(f"left out {entry.what}: {entry.reason}")
    pack = earlier.merged_with(built.pack, version=options["version_"]) if earlier else built.pack
    if not built.pack.entries:
        terminal.complain("none of the artifacts could be measured; nothing was written")
        return exit_codes.COULD_NOT_RUN
    pack.save(output)
    repositories = {entry.provenance.repository for entry in pack.entries}
    terminal.show(f"wrote {output}: {len(pack.entries)} artifacts of {len(repositories)} repositories")
    return exit_codes.OK


def _listed(path: Path) -> list[tuple[str, Provenance | None]]:
    """The artifacts of a manifest with their origins; raises UsageError."""
    from ftsec_audit.calibration.pack import Provenance

    try:
        records = json.loads(path.read_text(encoding="utf-8"))
        return [
            (
                str(path.parent / record["dir"]),
                Provenance(**{field: str(record.get(key, "")) for key, field in _ORIGIN.items()}),
            )
            for record in records
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f"is not a manifest ({type(error).__name__}: {error})",
            where=str(path),
            hint="a JSON list of objects with at least dir and repo",
        ) from error
