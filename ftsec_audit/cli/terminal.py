"""What a person sees while the program runs: errors, notes and progress, all on standard error."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ftsec_audit.contracts import Progress
from ftsec_audit.report.escape import visible

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.progress import TaskID
    from rich.table import Table


def complain(message: str) -> None:
    """An error; every line of it may quote an artifact, so it is made visible first."""
    lines = message.splitlines() or [""]
    _write(sys.stderr, "\n".join(["error: " + visible(lines[0]), *map(visible, lines[1:])]) + "\n")


def remark(message: str) -> None:
    """A line for a person, not part of the result."""
    _write(sys.stderr, visible(message) + "\n")


def show(text: str) -> None:
    """Part of the result, on standard output. A reader that went away is no error."""
    _write(sys.stdout, text if text.endswith("\n") else text + "\n")


def _write(stream: Any, text: str) -> None:
    try:
        stream.write(text)
        stream.flush()
    except BrokenPipeError:
        # `| head` closed the pipe: the rest goes nowhere, and the exit code stays that of the verdict.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def tolerate_any_encoding() -> None:
    """A terminal that cannot show a character gets its escape instead of a crash."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def wants_color(stream: Any) -> bool:
    return bool(stream.isatty()) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def log_debugging() -> None:
    """Show the program's own log on standard error."""
    import logging

    logging.basicConfig(stream=sys.stderr, format="%(name)s: %(message)s")
    logging.getLogger("ftsec_audit").setLevel(logging.DEBUG)


@contextmanager
def progress(*, quiet: bool, verbose: bool, bars: bool) -> Iterator[Progress]:
    """Bars on a terminal, plain lines elsewhere; with `quiet` nothing."""
    if quiet:
        yield Progress()
    elif bars and sys.stderr.isatty():
        shown = Bars(verbose=verbose)
        try:
            yield shown
        finally:
            shown.close()
    else:
        yield Lines(stages=bars, notes=verbose)


class Lines(Progress):
    """One line per stage and per note."""

    def __init__(self, *, stages: bool, notes: bool) -> None:
        self._stages, self._notes = stages, notes

    def start(self, stage: str, total: int | None = None, unit: str = "") -> None:
        if self._stages:
            remark(f"{stage}: {total:,} {unit}" if total else stage)

    def note(self, message: str) -> None:
        if self._notes:
            remark(message)


class Bars(Progress):
    """A bar for the current stage, below a table of figures where there are any."""

    def __init__(self, *, verbose: bool) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as RichProgress

        class WithFigures(RichProgress):
            figures: Table | None = None

            def get_renderables(self) -> Iterable[RenderableType]:
                if self.figures is not None:
                    yield self.figures
                yield from super().get_renderables()

        self._verbose = verbose
        self._bars = WithFigures(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}", markup=False),
            TimeElapsedColumn(),
            console=Console(stderr=True, highlight=False),
            transient=True,
            # Lines for the same terminal pass above the bars; a file or a pipe gets its own.
            redirect_stdout=sys.stdout.isatty(),
        )
        self._task: TaskID | None = None

    def start(self, stage: str, total: int | None = None, unit: str = "") -> None:
        self._bars.start()
        if self._task is not None:
            self._bars.remove_task(self._task)
        self._task = self._bars.add_task(visible(stage, 60), total=total, unit=unit)

    def advance(self, amount: int = 1) -> None:
        if self._task is not None:
            self._bars.advance(self._task, amount)

    def figures(self, values: Mapping[str, str]) -> None:
        from rich.table import Table

        table = Table(*values, box=None, header_style="dim", padding=(0, 2, 0, 0))
        table.add_row(*map(visible, values.values()))
        self._bars.figures = table

    def note(self, message: str) -> None:
        if self._verbose:
            self._bars.console.print(visible(message), markup=False)

    def close(self) -> None:
        self._bars.stop()
