"""One invocation of `scan`: ask each model, write its reports, remember what a pipeline has to know."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from ftsec_audit.cli import exit_codes, terminal
from ftsec_audit.cli.output import Destinations
from ftsec_audit.cli.verdicts import Judge
from ftsec_audit.errors import FtsecError, UsageError
from ftsec_audit.scan_options import ScanOptions
from ftsec_audit.signing import RequiredSignature, SignatureRefused
from ftsec_audit.types import Verdict

if TYPE_CHECKING:
    from ftsec_audit.batch.in_order import Answer, Request
    from ftsec_audit.contracts import Progress
    from ftsec_audit.models_list import Model
    from ftsec_audit.types import Report

_WHERE_ONLY = frozenset(
    {
        "targets",
        "models",
        "folders",
        "base",
        "jobs",
        "outputs",
        "output",
        "quiet",
        "verbose",
        "no_progress",
        "dry_run",
        "config",
        "mlflow_tags",
        "mlflow_alias",
        "sign_key",
    }
)
"""Parameters that do not belong to the command that reproduces one target's report."""
_SAME_NAME = (
    *("no_base", "parent", "stack", "profile", "select", "ignore", "offline", "max_bytes", "seed"),
    *("backend", "device", "max_tokens", "probes", "show_prompts", "languages", "dataset"),
)
"""Parameters of the command that are fields of `ScanOptions`."""
_JUDGING = ("policy", "fail_on", "strict", "ignorefile", "baseline")


def scan_options(options: dict[str, Any], model: Model) -> ScanOptions:
    """What the command line says about finding and asking one model."""
    return ScanOptions(
        base=model.base or options["base"],
        max_seconds=options["max_time"],
        cache=not options["no_cache"],
        **{name: options[name] for name in _SAME_NAME},
    )


class Gate:
    """Everything is checked before the first model is asked; raises UsageError."""

    def __init__(self, ctx: click.Context, options: dict[str, Any], models: Sequence[Model]) -> None:
        self._options, self._models = options, models
        several = len(models) > 1
        self._destinations = Destinations.of(
            options["outputs"], options["output"], several=several, quiet=options["quiet"]
        )
        self._destinations.sign_with(options["sign_key"])
        self._records = bool(options["mlflow_tags"] or options["mlflow_alias"])
        if self._records:
            from ftsec_audit.cli import promotion

            for model in models:
                promotion.check(model.model)
        self._requests = self._asked(ctx, _required(options, several=several))

    def _asked(self, ctx: click.Context, required: RequiredSignature | None) -> list[Request]:
        from ftsec_audit.calibration.bank import Calibration

        packs = self._options["calibration"]
        shared = {
            **Judge.of(**{name: self._options[name] for name in _JUDGING}).options(),
            "calibration": Calibration.load(packs) if packs else None,
            "hash_everything": self._destinations.need_digests,
            "required_signature": required,
        }
        return [
            (
                model.model,
                replace(scan_options(self._options, model), **shared, command=_reproduce(ctx, model)),
            )
            for model in self._models
        ]

    def run(self) -> int:
        """The exit code: of several models, the most decisive."""
        # Not strict: there are fewer answers than models once a scan was interrupted.
        answered = zip(self._models, self._answers(), strict=False)
        codes: list[int] = []
        try:
            for model, answer in answered:
                codes.append(self._settle(model, answer))
        except KeyboardInterrupt:  # between two scans; within one, its report says so
            if not codes:
                raise
            terminal.complain("interrupted before every target had a report")
            codes.append(exit_codes.INCONCLUSIVE)
        if self._destinations.failures:
            codes.append(exit_codes.COULD_NOT_RUN)
        return exit_codes.worst(codes)

    def _answers(self) -> Iterator[Answer]:
        """One for each model, in their order; Ctrl-C ends them early."""
        from ftsec_audit import api
        from ftsec_audit.batch import in_order

        workers = min(self._options["jobs"], len(self._requests))
        if workers > 1:
            with self._progress() as progress:
                yield from in_order.answers(self._requests, workers, progress)
            return
        for reference, asked in self._requests:
            with self._progress() as progress:
                answer = in_order.answer(reference, replace(asked, progress=progress))
            yield answer
            if not isinstance(answer, FtsecError) and api.was_interrupted(answer):
                return

    def _progress(self) -> AbstractContextManager[Progress]:
        options = self._options
        return terminal.progress(
            quiet=options["quiet"], verbose=options["verbose"] > 0, bars=not options["no_progress"]
        )

    def _settle(self, model: Model, answer: Answer) -> int:
        """Show and write what became of a model; its exit code."""
        if isinstance(answer, FtsecError):
            terminal.complain(str(answer))
            return self._code_without_report(answer)
        report = replace(answer, listed_at=model.listed_at)
        self._destinations.write(report)
        if self._options["show_suppressed"]:
            for entry in report.suppressed:
                terminal.remark(
                    f"suppressed {entry.finding.rule}: {entry.finding.summary} ({entry.statement})"
                )
        codes = [exit_codes.of_verdict(report.verdict, exit_zero=self._options["exit_zero"])]
        if self._records:
            codes.append(self._record(report))
        return exit_codes.worst(codes)

    def _code_without_report(self, error: FtsecError) -> int:
        from ftsec_audit.batch.in_order import Interrupted

        if isinstance(error, SignatureRefused):
            return exit_codes.of_verdict(Verdict.FAIL, exit_zero=self._options["exit_zero"])
        return exit_codes.INCONCLUSIVE if isinstance(error, Interrupted) else exit_codes.COULD_NOT_RUN

    def _record(self, report: Report) -> int:
        """Tell the registry; what is found counts also when the registry cannot be told."""
        from ftsec_audit.cli import promotion

        try:
            promotion.record(report, self._options["mlflow_alias"])
        except FtsecError as error:
            terminal.complain(str(error))
            return exit_codes.COULD_NOT_RUN
        return exit_codes.OK


def _required(options: dict[str, Any], *, several: bool) -> RequiredSignature | None:
    key, signature = options["require_signature"], options["signature"]
    if signature and not key:
        raise UsageError("--signature says nothing without --require-signature")
    if signature and several:
        raise UsageError("one signature, and several targets", hint="put model.sig into each folder")
    return RequiredSignature(public_key=key, signature=signature) if key else None


def _reproduce(ctx: click.Context, model: Model) -> str:
    """The command line of this one target, with the options that were set by whatever means."""
    words = ["ftsec-audit", "scan", model.model]
    base = model.base or ctx.params["base"]
    words += ["--base", base] if base else []
    for parameter in ctx.command.params:
        name = parameter.name or ""
        unset = ctx.get_parameter_source(name) in (ParameterSource.DEFAULT, None)
        if unset or name in _WHERE_ONLY or not isinstance(parameter, click.Option):
            continue
        words += _spelled(max(parameter.opts, key=len), ctx.params[name], is_flag=parameter.is_flag)
    return shlex.join(words)


def _spelled(flag: str, value: Any, *, is_flag: bool) -> list[str]:
    if is_flag:
        return [flag] if value else []
    if isinstance(value, tuple) and all(isinstance(item, str) for item in value):
        return [flag, ",".join(value)]
    values = value if isinstance(value, tuple) else (value,)
    return [word for item in values for word in (flag, str(item))]
