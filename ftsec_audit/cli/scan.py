"""`ftsec-audit scan`: the gate."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ftsec_audit.cli import exit_codes, terminal
from ftsec_audit.cli.options import (
    comma_list,
    duration,
    further,
    option,
    output_options,
    policy_options,
    size,
)
from ftsec_audit.errors import FtsecError, UsageError
from ftsec_audit.settings import Settings

if TYPE_CHECKING:
    from ftsec_audit.models_list import Model
    from ftsec_audit.planning import Plan


class ScanCommand(click.Command):
    """Takes defaults from the settings file of the working directory, but never from a scanned folder."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        first = super().make_context(info_name, list(args), parent, **extra)
        explicit = first.params["config"]
        settings = Settings.load(explicit) if explicit else Settings.discover(Path.cwd())
        if settings is None:
            return first
        names = {parameter.name for parameter in self.params if parameter.name} - {"targets", "config"}
        targets = first.params["targets"]
        if not explicit and any(settings.belongs_to(target) for target in targets):
            terminal.remark(f"{settings.path.name} lies in what is scanned and is not obeyed (see --config)")
            return first
        aliases = {"format": "outputs"}
        values = settings.checked([*names, *aliases])
        defaults = {aliases.get(key, key): value for key, value in values.items()}
        return super().make_context(info_name, list(args), parent, default_map=defaults, **extra)


@click.command("scan", cls=ScanCommand, no_args_is_help=True)
@click.argument("targets", nargs=-1, metavar="TARGET...")
@option(
    "-r",
    "--models",
    type=click.Path(path_type=Path, dir_okay=False),
    help="YAML file that lists models, each with its base if wanted.",
)
@option("--folders", is_flag=True, help="Targets are files: scan the folders they lie in (for commit hooks).")
@option("--base", metavar="REF", help="Base model.  [default: the one the artifact declares]")
@option("--no-base", is_flag=True, help="Compare with no base; what needs one stays unanswered.")
@option("--parent", metavar="REF", help="Unaligned model that the base was made from, for FTA208.")
@option(
    "--with",
    "stack",
    type=further,
    multiple=True,
    metavar="REF[=SCALE]",
    help="A further adapter that is loaded with the target, repeatable: audit what they are together.",
)
@option(
    "--profile",
    type=click.Choice(["quick", "standard", "deep"]),
    default="standard",
    show_default=True,
    help="quick: what the artifact alone shows. standard: also what a comparison with its base and, for "
    "models that fit, short questioning show. deep: all probes, larger models.",
)
@option("--select", type=comma_list, default="", metavar="IDS", help="Only these rules: FTA2,FTA401.")
@option("--ignore", type=comma_list, default="", metavar="IDS", help="Without these rules.")
@policy_options
@option("--show-suppressed", is_flag=True, help="List findings that were set aside, on standard error.")
@output_options
@option(
    "--calibration",
    type=click.Path(path_type=Path, dir_okay=False),
    multiple=True,
    help="Calibration pack, or learned score (.onnx), in place of the shipped ones; repeatable.",
)
@option(
    "--max-bytes", type=size, metavar="SIZE", help="Read at most this much of artifact and base: 500MB, 2GiB."
)
@option("--max-time", type=duration, metavar="DURATION", help="Stop after this long: 90s, 5m.")
@option(
    "--backend",
    type=click.Choice(["auto", "torch", "onnx"]),
    default="auto",
    show_default=True,
    help="What runs the model. onnx: its ONNX graph, by onnxruntime, also where other weights lie beside it. "
    "torch: never a graph. auto: the graph only where there is nothing else.",
)
@option("--device", default="auto", show_default=True, metavar="NAME", help="auto, cpu, cuda or cuda:1.")
@option("--seed", type=int, default=0, show_default=True, help="Of everything that is drawn at random.")
@option(
    "--max-tokens",
    type=click.IntRange(min=1),
    metavar="N",
    help="Ask models at most so many tokens.  [default: by profile and size]",
)
@option(
    "--probes",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Own prompts to ask about alignment.  [default: those beside the base, else shipped ones]",
)
@option(
    "--show-prompts",
    is_flag=True,
    help="Repeat the probe prompts that the evidence rests on. Reports name them by id alone otherwise: many "
    "ask for something harmful.",
)
@option("--languages", type=comma_list, default="", metavar="CODES", help="Ask only in these: en,ru.")
@option(
    "--dataset",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Audit the rows it was tuned on too: JSON lines, a JSON array or Parquet.",
)
@option(
    "-j",
    "--jobs",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    metavar="N",
    help="Scan so many of several targets at once, each in a process with one thread.",
)
@option(
    "--mlflow-tags", is_flag=True, help="Write the verdict into tags of the scanned models:/name/version."
)
@option(
    "--mlflow-alias",
    metavar="NAME",
    help="On PASS, make this alias mean the scanned version; sets the tags too.",
)
@option(
    "--require-signature",
    metavar="KEY",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="Scan only what is signed with the other half of this public key (PEM); the rest fails.",
)
@option(
    "--signature",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The signature that is required.  [default: model.sig in the folder, FILE.sig beside a file]",
)
@option(
    "--sign-key",
    metavar="KEY",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="Sign each -f intoto=PATH with this private key (PEM), into PATH.sig.",
)
@option("--offline", is_flag=True, help="Use only what is on this machine already.")
@option("--no-cache", is_flag=True, help="Measure again even if these bytes were measured before.")
@option("--dry-run", is_flag=True, help="Show what would be read and asked, then stop.")
@option("--config", type=click.Path(path_type=Path, dir_okay=False), help="Settings file to use.")
@option("-q", "--quiet", is_flag=True, help="No table, no notes; reports that were asked for, and errors.")
@option("-v", "--verbose", count=True, help="Notes, such as bytes transferred; -vv for debugging.")
@option("--no-progress", is_flag=True, help="No progress bars.")
@click.pass_context
def command(ctx: click.Context, /, **options: Any) -> int:
    """Audit adapters and checkpoints before they are deployed.

    TARGET is a directory, a file, org/model, org/model@revision, hf://org/model@revision/folder,
    models:/name/version or models:/name@alias of the MLflow registry at MLFLOW_TRACKING_URI,
    s3://bucket/prefix, or - to read references from standard input. Nothing from a target is executed,
    imported or unpickled.

    \b
    Examples:
      ftsec-audit scan ./adapter --base ./base-model
      ftsec-audit scan org/model --profile quick           seconds, no base needed
      ftsec-audit scan org/model@3f2c91a -f table -f sarif=out.sarif -f html=out.html
      ftsec-audit scan -r models.yaml --policy strict -f json=reports/
      ftsec-audit scan models:/support/3 --mlflow-alias production     moved on PASS only
      ftsec-audit scan ./style --with ./task=0.5 --base ./base-model      adapters that are loaded together
      ftsec-audit scan ./adapter --fail-on critical --baseline accepted.json

    \b
    Exit codes: 0 passed · 1 failed (a blocking finding outranks errors) · 2 could not run ·
    3 inconclusive: something the policy requires has no answer. Of several targets the most decisive
    counts: 1, then 2, then 3. Ctrl-C keeps what was found so far and exits 3, or 1 if that blocks; with -j,
    targets that are not done then have no report. Reports come in the order of the targets.

    Every option is also a variable FTSEC_AUDIT_<OPTION> and a key of ftsec-audit.yaml or
    [tool.ftsec-audit] in pyproject.toml of the working directory; a flag wins over a variable, a variable
    over a file.
    """
    from ftsec_audit.cli.gate import Gate

    if options["verbose"] > 1:
        terminal.log_debugging()
    targets = _folders(options["targets"]) if options["folders"] else options["targets"]
    models = _models(targets, options["models"])
    if options["dry_run"]:
        return _dry_run(models, options)
    return Gate(ctx, options, models).run()


def _models(targets: Iterable[str], listed: Path | None) -> tuple[Model, ...]:
    """All that is to be scanned, each once; raises UsageError when there is nothing."""
    from ftsec_audit import models_list

    models = [model for target in targets for model in _of_target(target)]
    if listed is not None:
        models += models_list.load(listed)
    if not models:
        raise UsageError("nothing to scan", hint="name a TARGET or a list with -r")
    return tuple(dict.fromkeys(models))


def _folders(files: Iterable[str]) -> tuple[str, ...]:
    """The folders that files lie in, each once; raises UsageError for what is no file here."""
    folders = []
    for file in files:
        if not Path(file).is_file():
            raise UsageError("no such file", where=file, hint="--folders takes files of this machine")
        folder = Path(file).parent
        folders.append(str(folder) if folder.is_absolute() or folder == Path() else f"./{folder}")
    return tuple(dict.fromkeys(folders))


def _of_target(target: str) -> tuple[Model, ...]:
    from ftsec_audit.models_list import Model, from_lines

    return from_lines(sys.stdin) if target == "-" else (Model(model=target),)


def _dry_run(models: Iterable[Model], options: dict[str, Any]) -> int:
    from ftsec_audit import api
    from ftsec_audit.cli.gate import scan_options

    codes = [exit_codes.OK]
    for model in models:
        try:
            terminal.show(_describe(api.plan(model.model, scan_options(options, model))))
        except FtsecError as error:
            terminal.complain(str(error))
            codes.append(exit_codes.COULD_NOT_RUN)
    return exit_codes.worst(codes)


def _describe(plan: Plan) -> str:
    from ftsec_audit.report.escape import visible

    artifact, base = plan.subject.artifact, plan.subject.base
    lines = [
        f"{visible(artifact.resolved)}   {artifact.card().description or artifact.kind}   {plan.profile}"
    ]
    lines += [f"  base   {visible(base.resolved if base else plan.subject.base_reason)}"]
    total = sum(file.size for file in artifact.files)
    weights = sum(file.size for file in artifact.weight_files)
    lines += [f"  files  {len(artifact.files):,}, {total:,} bytes, of which {weights:,} are weights"]
    lines += [f"         {file.size:>14,}  {visible(file.path, 80)}" for file in artifact.files[:50]]
    if len(artifact.files) > 50:
        lines.append(f"         … and {len(artifact.files) - 50:,} more")
    lines += [f"  rules  {len(plan.rules)}: {', '.join(sorted(rule.id for rule in plan.rules))}"]
    asked = {rule.id for rule in plan.rules}
    names = [d.label for d in plan.detectors if any(rule.id in asked for rule in d.rules)]
    return "\n".join([*lines, *(f"         {name}" for name in names)])
