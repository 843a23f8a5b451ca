"""Where reports go: the screen, files, or a folder when there are several targets."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ftsec_audit import api, atomic_file
from ftsec_audit.cli import clock, terminal
from ftsec_audit.cli.options import Output
from ftsec_audit.errors import UsageError
from ftsec_audit.report import BINARY, render_all
from ftsec_audit.types import Report

_SUFFIXES = {
    "table": "txt",
    "json": "json",
    "jsonl": "jsonl",
    "sarif": "sarif",
    "html": "html",
    "markdown": "md",
    "cyclonedx": "cdx.json",
    "intoto": "intoto.jsonl",
    "parquet": "parquet",
}
_ONE_REPORT_EACH = frozenset({"json", "sarif", "html", "cyclonedx"})
"""Formats in which several reports cannot simply follow one another."""


@dataclass(kw_only=True)
class Destinations:
    """Writes each report everywhere it was asked for; what cannot be written is counted, not raised."""

    outputs: tuple[Output, ...]
    several: bool
    """Whether more than one report is coming."""
    judged: bool
    """Whether the verdicts are of now, so that a format which says when can say it."""
    failures: int = 0
    sign_key: Path | None = None
    """The private key with which in-toto statements are signed."""
    _written: dict[Path, str] = field(default_factory=dict)
    _reports: dict[Path, list[Report]] = field(default_factory=dict)
    """What the binary files hold so far."""

    @classmethod
    def of(
        cls,
        outputs: Sequence[Output],
        output: str | None,
        *,
        several: bool,
        quiet: bool = False,
        judged: bool = True,
    ) -> Destinations:
        """Check the options before anything is scanned; raises UsageError.

        The table is shown on standard output unless another format goes there or `quiet`.
        """
        bare = [o for o in outputs if o.path is None]
        if output is not None:
            if len(bare) > 1 or (outputs and not bare):
                raise UsageError("-o needs exactly one -f without a path", hint="write -f FMT=PATH instead")
            named = Output.to(bare[0].format if bare else "table", output)
            outputs, bare = [*(o for o in outputs if o.path is not None), named], []
        if len(bare) > 1:
            raise UsageError("only one format can go to standard output", hint="give the others as FMT=PATH")
        chosen = tuple(outputs) if bare or quiet else (Output("table"), *outputs)
        for each in chosen:
            if several and each.format in _ONE_REPORT_EACH and not each.is_folder(several=True):
                raise UsageError(
                    f"{each.format} holds one report and there are several targets",
                    hint=f"name a folder, -f {each.format}=reports/, or use jsonl",
                )
        return cls(outputs=chosen, several=several, judged=judged)

    @property
    def need_digests(self) -> bool:
        """Whether some format claims something of every file, so that each has to be hashed."""
        return any(output.format in ("intoto", "cyclonedx") for output in self.outputs)

    def sign_with(self, key: Path | None) -> None:
        """Sign what can be signed; raises UsageError when nothing can."""
        if key and not any(output.format == "intoto" and output.path for output in self.outputs):
            raise UsageError("--sign-key signs in-toto statements in a file", hint="add -f intoto=PATH")
        self.sign_key = key

    def write(self, report: Report) -> None:
        """Screen first: findings are shown even when the disk is full."""
        for output in sorted(self.outputs, key=lambda o: o.path is not None):
            try:
                if output.path is None:
                    terminal.show(self._on_screen(report, output.format))
                else:
                    self._write_file(output, output.path, report)
            except UsageError as error:  # a format that this report has not got the data for
                self.failures += 1
                terminal.complain(str(error))

    def _write_file(self, output: Output, path: Path, report: Report) -> None:
        try:
            if output.is_folder(several=self.several):
                path.mkdir(parents=True, exist_ok=True)
                path = path / f"{_slug(report)}.{_SUFFIXES[output.format]}"
            if output.format in BINARY:
                reports = self._reports.setdefault(path, [])
                reports.append(report)
                atomic_file.write(path, render_all(reports, output.format))
                return
            text = self._written.get(path, "") + self._rendered(report, output.format)
            atomic_file.write(path, text)
            if self.sign_key and output.format == "intoto":
                from ftsec_audit import signing

                signing.sign(path, self.sign_key)
            if self.several:
                self._written[path] = text
        except OSError as error:
            self.failures += 1
            reason = error.strerror or type(error).__name__
            terminal.complain(f"{path}: the {output.format} report could not be written: {reason}")

    def _on_screen(self, report: Report, format: str) -> str:
        if format != "table":
            return self._rendered(report, format)
        from ftsec_audit.report import table

        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        return table.render(report, width=width, color=terminal.wants_color(sys.stdout))

    def _rendered(self, report: Report, format: str) -> str:
        if format != "intoto" or not self.judged:
            return api.render(report, format)
        from ftsec_audit.report import intoto

        return intoto.render(report, created=clock.now())


def _slug(report: Report) -> str:
    """A file name from the reference; the digest keeps two of the same name apart."""
    name = re.sub(r"[^A-Za-z0-9.]+", "-", report.artifact.reference).strip("-.")[-80:] or "report"
    digest = report.artifact.digest.rpartition(":")[2][:8]
    return f"{name}-{digest}" if digest else name
