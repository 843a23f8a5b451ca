"""The report as GitHub-flavoured Markdown: a pull-request comment, or a section of a model card."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from ftsec_audit.report import phrases
from ftsec_audit.report.escape import visible
from ftsec_audit.types import ArtifactCard, Evidence, Finding, Outcome, Report, Verdict

_MAX_FINDINGS = 50
_MAX_EVIDENCE = 10
_MAX_ENTRIES = 30
_MAX_TEXT = 500
"""Together below the 65,536 characters that a comment may have, for all but extreme reports."""

_SIGN = {Verdict.PASS: "✅", Verdict.FAIL: "❌", Verdict.INCONCLUSIVE: "⚠️"}
_MARKUP = re.compile(
    r"[\\`*_{}\[\]<>#!|~@:&$]"  # inline markup, HTML, tables, mathematics; the colon of a bare link
    r"|^[-+=]|(?<=\d)[.)](?=\s)"  # what begins a block
    r"|(?<=[wW]{3})\."  # a bare link without a scheme
)


def render(report: Report) -> str:
    return "\n".join(_lines(report)) + "\n"


def plain(text: str) -> str:
    """`text` so that Markdown shows just its characters: no markup, HTML, link, mention or reference."""
    # Mentions (@name) and references (#12, org/repo#12) are made after Markdown has been read.
    entities = {"&": "&amp;", "<": "&lt;", "@": "@&#8203;", "#": "#&#8203;"}
    return _MARKUP.sub(lambda match: entities.get(match[0], "\\" + match[0]), visible(text, _MAX_TEXT))


def code(text: str) -> str:
    """`text` as a code span, also within a table."""
    shown = visible(text, _MAX_TEXT)
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", shown)), default=0))
    pad = " " if shown.startswith("`") or shown.endswith("`") or not shown.strip() else ""
    return f"{fence}{pad}{shown}{pad}{fence}".replace("|", "\\|")


def _lines(report: Report) -> Iterator[str]:
    decision = report.decision
    yield f"## {_SIGN[decision.verdict]} ftsec-audit: {decision.verdict.upper()}"
    yield ""
    yield f"{' · '.join(phrases.tally(report))} — policy {plain(decision.policy)}, profile {report.profile}"
    yield ""
    yield from _card(report)
    yield from _list("", decision.reasons)
    for finding in report.detected()[:_MAX_FINDINGS]:
        yield from _finding(finding, phrases.rule_names(report).get(finding.rule, ""))
    if (rest := len(report.detected()) - _MAX_FINDINGS) > 0:
        yield f"… and {phrases.count(rest, 'more detection')}."
        yield ""
    yield from _answers(report)
    yield from _list("Not looked at", (f"{entry.what}: {entry.reason}" for entry in report.not_looked_at))
    yield from _list("Limits", report.limits)
    yield f"> {phrases.PASS_MEANS}"
    if report.command:
        yield ""
        yield f"Reproduce: {code(report.command)} (ftsec-audit {plain(report.tool_version)})"


def _card(report: Report) -> Iterator[str]:
    yield "| | |"
    yield "|---|---|"
    yield f"| artifact | {_named(report.artifact)} |"
    if report.artifact.digest:
        yield f"| digest | {code(report.artifact.digest)} |"
    yield f"| base | {_named(report.base) if report.base else 'none'} |"
    if report.suspicion.total is not None:
        yield f"| suspicion | {phrases.number(report.suspicion.total)} (for ranking only) |"
    yield ""


def _named(card: ArtifactCard) -> str:
    what = card.description or card.kind
    return code(card.resolved or card.reference) + (f" {plain(what)}" if what else "")


def _finding(finding: Finding, name: str) -> Iterator[str]:
    yield f"### {finding.severity.upper()} · {plain(finding.rule)} {plain(name)}"
    yield ""
    certainty = f"confidence {finding.confidence}"
    if finding.p_value is not None:
        certainty += f", {phrases.p_value(finding.p_value)}"
    yield f"{plain(finding.summary)} ({certainty})"
    yield ""
    yield from _evidence(finding.evidence)
    if finding.remediation:
        yield f"**What to do:** {plain(finding.remediation)}"
        yield ""


def _evidence(evidence: Sequence[Evidence]) -> Iterator[str]:
    if not evidence:
        return
    yield "| evidence | measured | benign | where |"
    yield "|---|---|---|---|"
    for piece in evidence[:_MAX_EVIDENCE]:
        message = plain(piece.message) + (f" {code(piece.excerpt)}" if piece.excerpt else "")
        message += "".join(f" {code(line)}" for line in phrases.prompts(piece))
        population = piece.population
        benign = f"{phrases.against(population)} ({population.stratum})" if population else ""
        at = phrases.place(piece.location)
        yield f"| {message} | {plain(phrases.measured(piece))} | {plain(benign)} | {code(at) if at else ''} |"
    if len(evidence) > _MAX_EVIDENCE:
        yield f"| … and {len(evidence) - _MAX_EVIDENCE:,} more | | | |"
    yield ""


def _answers(report: Report) -> Iterator[str]:
    """The rules without a detection, folded away."""
    others = [finding for finding in report.findings if finding.outcome is not Outcome.DETECTED]
    if not others:
        return
    names = phrases.rule_names(report)
    yield f"<details><summary>The other {phrases.count(len(others), 'answer')}</summary>"
    yield ""
    yield "| rule | answer | |"
    yield "|---|---|---|"
    for finding in others:
        name = plain(names.get(finding.rule, ""))
        answer = phrases.OUTCOME_NAMES[finding.outcome]
        yield f"| {plain(finding.rule)} {name} | {answer} | {plain(finding.summary)} |"
    yield ""
    yield "</details>"
    yield ""


def _list(title: str, entries: Iterable[str]) -> Iterator[str]:
    entries = list(entries)
    if not entries:
        return
    if title:
        yield f"### {title}"
        yield ""
    yield from (f"- {plain(entry)}" for entry in entries[:_MAX_ENTRIES])
    if len(entries) > _MAX_ENTRIES:
        yield f"- … and {len(entries) - _MAX_ENTRIES:,} more"
    yield ""
