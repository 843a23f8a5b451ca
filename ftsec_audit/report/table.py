"""The report on a terminal: one screen, the verdict first, then what it rests on.

Strings are laid out as `rich.text.Text`, never as rich markup, and pass through `visible`, so that an
artifact can neither colour, move nor erase anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from io import StringIO
from typing import TYPE_CHECKING

from ftsec_audit.report import phrases
from ftsec_audit.report.escape import visible
from ftsec_audit.types import Evidence, Finding, Report, Severity, Verdict

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

WIDTH = 100
_MAX_FINDINGS = 12
_MAX_EVIDENCE = 3
_MAX_LINES = 6
"""Of each list below the findings; the rest is counted, and written out by the other formats."""

_VERDICT_STYLE = {
    Verdict.PASS: "bold green",
    Verdict.FAIL: "bold red",
    Verdict.INCONCLUSIVE: "bold yellow",
}
_SEVERITY_STYLE = {
    Severity.CRITICAL: "bold red",
    Severity.HIGH: "red",
    Severity.MEDIUM: "yellow",
    Severity.LOW: "cyan",
    Severity.INFO: "dim",
}


def render(report: Report, *, width: int | None = None, color: bool = False) -> str:
    """The screen as text, `width` columns wide (100 when not given), with ANSI colours or without."""
    from rich.console import Console

    output = StringIO()
    console = Console(
        file=output,
        width=width or WIDTH,
        color_system="standard" if color else None,
        force_terminal=color,
        legacy_windows=False,
        highlight=False,
        _environ={},  # NO_COLOR and the like are for the caller to decide
    )
    _Screen(console).draw(report)
    return "\n".join(line.rstrip() for line in output.getvalue().splitlines()) + "\n"


class _Screen:
    """Writes the parts of a report to a console, one below the other."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def draw(self, report: Report) -> None:
        self._headline(report)
        self._verdict(report)
        names = phrases.rule_names(report)
        detected = report.detected()
        for finding in detected[:_MAX_FINDINGS]:
            self._finding(finding, names.get(finding.rule, ""))
        if len(detected) > _MAX_FINDINGS:
            rest = phrases.count(len(detected) - _MAX_FINDINGS, "more detection")
            self._line(f"… {rest}, in every other format", indent=2, style="dim")
        self._list("no answer", map(phrases.without_answer, phrases.unanswered(report)))
        self._list("not looked at", (f"{entry.what}: {entry.reason}" for entry in report.not_looked_at))
        self._list("limits", report.limits)
        self._console.print()
        self._line(phrases.PASS_MEANS, indent=2, style="dim")
        self._line(f"next: {phrases.next_step(report)}", indent=2)

    def _headline(self, report: Report) -> None:
        artifact, base = report.artifact, report.base
        self._line(phrases.short(artifact.resolved or artifact.reference), indent=0, style="bold")
        what = artifact.description or artifact.kind
        on = f" on {phrases.short(base.resolved or base.reference)}" if base is not None else ""
        self._line(f"{visible(what, 120)}{visible(on, 200)} · {report.profile}", indent=2)

    def _verdict(self, report: Report) -> None:
        decision = report.decision
        text = self._text(decision.verdict.upper(), style=_VERDICT_STYLE[decision.verdict])
        text.append("   " + " · ".join(phrases.tally(report)))
        policy = self._text(f"policy {decision.policy}", limit=40, style="dim")
        room = self._console.width - 2 - text.cell_len - policy.cell_len
        text.append(" " * room if room >= 3 else "   ")
        self._flow(text.append_text(policy), indent=2)
        self._entries(decision.reasons, style="dim")

    def _finding(self, finding: Finding, name: str) -> None:
        self._console.print()
        text = self._text(f"{finding.rule}  ", style="bold")
        text.append(f"{finding.severity.upper():<8}", style=_SEVERITY_STYLE[finding.severity])
        text.append(f"  {visible(name, 60)}" if name else "", style="bold")
        text.append(f"   confidence {finding.confidence}", style="dim")
        if finding.p_value is not None:
            text.append(f"   {phrases.p_value(finding.p_value)}", style="dim")
        self._flow(text, indent=2)
        self._line(finding.summary, indent=4)
        shown = finding.evidence[:_MAX_EVIDENCE]
        files = {evidence.location.file for evidence in finding.evidence}
        for evidence in shown:
            self._line(f"· {evidence.message}", indent=4, hang=2)
            self._line(_particulars(evidence, with_file=len(files) > 1), indent=6, style="dim")
            for line in phrases.prompts(evidence):
                self._line(line, indent=6, hang=2, style="dim")
        self._more(len(finding.evidence) - len(shown), indent=4)
        common = [f"in {file}" for file in files if file and len(files) == 1]
        common += [f"benign: {origin}" for origin in phrases.origins(finding)]
        self._entries(common, style="dim")

    def _list(self, title: str, entries: Iterable[str]) -> None:
        entries = list(entries)
        if entries:
            self._console.print()
            self._line(title, indent=2, style="bold")
            self._entries(entries)

    def _entries(self, entries: Sequence[str], style: str = "") -> None:
        for entry in entries[:_MAX_LINES]:
            self._line(entry, indent=4, hang=2, style=style)
        self._more(len(entries) - _MAX_LINES, indent=4)

    def _more(self, n: int, indent: int) -> None:
        if n > 0:
            self._line(f"… and {n:,} more", indent=indent, style="dim")

    def _line(self, text: str, *, indent: int, hang: int = 0, style: str = "") -> None:
        self._flow(self._text(text, style=style), indent=indent, hang=hang)

    def _text(self, text: str, *, limit: int = 400, style: str = "") -> Text:
        from rich.text import Text

        return Text().append(visible(text, limit), style=style)

    def _flow(self, text: Text, *, indent: int = 0, hang: int = 0) -> None:
        """Wrap `text`, if there is any; lines after the first start `hang` columns further in."""
        if not text:
            return
        first, *rest = text.wrap(self._console, self._console.width - indent - hang) or [text]
        for line, margin in ((first, indent), *((line, indent + hang) for line in rest)):
            line.pad_left(margin)
            self._console.print(line, soft_wrap=True)


def _particulars(evidence: Evidence, *, with_file: bool) -> str:
    """Number, population, excerpt and place, without what the message has said already."""
    location = evidence.location
    if location.tensor in evidence.message:
        location = replace(location, tensor="")
    population = evidence.population if "benign" not in evidence.message else None
    said = evidence.value is not None and phrases.number(evidence.value) in evidence.message
    parts = [
        "" if said else phrases.measured(evidence),
        phrases.against(population) if population is not None else "",
        f"“{visible(evidence.excerpt, 60)}”" if evidence.excerpt else "",
        phrases.place(location if with_file else replace(location, file="")),
    ]
    return " · ".join(filter(None, parts))
