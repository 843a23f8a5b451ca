"""The report as one HTML file: no script, no network, readable in the dark, on paper and by keyboard.

The content security policy allows the file's own style sheet, by digest, and nothing else. Everything
that is written into the page is passed through `visible` and then escaped, by the template engine
rather than by each template.
"""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Sequence
from hashlib import sha256
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from ftsec_audit.report import behaviour, phrases, spectrum, strip, template_diff
from ftsec_audit.report.embedding_rows import changed_rows
from ftsec_audit.report.escape import visible
from ftsec_audit.report.heat_map import heat_maps
from ftsec_audit.report.json import plain
from ftsec_audit.report.module_table import module_table
from ftsec_audit.report.template_diff import template_diffs
from ftsec_audit.types import Finding, Outcome, Report, Verdict

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

_MAX_TEXT = 2_000
_LIMITS = {"findings": 100, "evidence": 25, "files": 200, "entries": 200, "details": 20}
"""What the page shows of long lists; it says how much it leaves out, and the JSON report has it all."""

_HEADLINE = {
    Verdict.PASS: "No known indicator that the policy blocks was found.",
    Verdict.FAIL: "The policy does not let this artifact pass.",
    Verdict.INCONCLUSIVE: "A question that the policy requires could not be answered.",
}


def render(report: Report) -> str:
    detected, others = report.detected(), _others(report)
    numbers = module_table(report)
    drawn = {
        "heat_maps": heat_maps(report),
        "spectra": spectrum.spectra(report),
        "triggers": behaviour.triggers(report),
        "refusals": behaviour.refusals(report),
        "language_grids": behaviour.language_grids(report),
        "embedding_rows": changed_rows(report),
        "template_diffs": template_diffs(report),
    }
    return page(
        "report.html",
        report=report,
        headline=_HEADLINE[report.verdict],
        detected=detected,
        others=others,
        rules={rule.id: rule for rule in report.rules},
        anchors=_anchors(detected, others),
        sections=_sections(report, drawn),
        numbers=numbers,
        shown=numbers.shown,
        **drawn,
    )


def page(template: str, **values: object) -> str:
    """A template of this package with the style sheet, whose digest its security policy names."""
    styles = (files("ftsec_audit.report") / "templates" / "report.css").read_text(encoding="utf-8")
    digest = b64encode(sha256(styles.encode()).digest()).decode()
    return _environment().get_template(template).render(styles=styles, styles_digest=digest, **values)


def _sections(report: Report, drawn: dict[str, Any]) -> list[tuple[str, str]]:
    """Anchor and name of the sections there are, in order."""
    there = {
        "findings": ("Findings", True),
        "behaviour": (
            "Behaviour",
            drawn["triggers"] or drawn["refusals"] or drawn["language_grids"],
        ),
        "rows": ("Embedding rows", drawn["embedding_rows"]),
        "template": ("Chat template", drawn["template_diffs"]),
        "weights": ("Weights", drawn["heat_maps"] or drawn["spectra"]),
        "answers": ("All answers", True),
        "open": ("Not looked at, limits", True),
        "suppressed": ("Suppressed", report.suppressed),
        "leads": ("Leads", report.leads),
        "reproduce": ("Reproduce", True),
    }
    return [(anchor, name) for anchor, (name, is_there) in there.items() if is_there]


def _anchors(detected: Sequence[Finding], others: Sequence[Finding]) -> dict[str, str]:
    """Rule → where the page has its (most severe) answer."""
    places = [(finding.rule, f"a{i}") for i, finding in enumerate(others)]
    found = [
        (finding.rule, f"f{i}" if i < _LIMITS["findings"] else "findings")
        for i, finding in enumerate(detected)
    ]
    return dict([*places[::-1], *found[::-1]])


def _others(report: Report) -> list[Finding]:
    """The answers without a detection, open questions first."""
    order = [Outcome.ERROR, Outcome.NOT_SUPPORTED, Outcome.NOT_DETECTED, Outcome.NOT_APPLICABLE]
    others = [finding for finding in report.findings if finding.outcome is not Outcome.DETECTED]
    return sorted(others, key=lambda finding: order.index(finding.outcome))


def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("ftsec_audit.report"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(
        phrases=phrases,
        strip=strip,
        spectrum=spectrum,
        details=_details,
        limits=_LIMITS,
        outcome_names=phrases.OUTCOME_NAMES,
    )
    environment.filters.update(bytes=_bytes, linked=_linked)
    return environment


def _shown(value: object) -> object:
    """What an expression of a template becomes before it is escaped; macros arrive as finished markup."""
    from markupsafe import Markup

    return value if isinstance(value, Markup) else visible(str(value), _MAX_TEXT)


def _details(details: dict[str, Any]) -> list[tuple[str, str]]:
    """The further values of a piece of evidence or of a lead, by name."""
    return [
        (name, json.dumps(value, ensure_ascii=False))
        for name, value in plain(details).items()
        if name != template_diff.KEY
    ]


def _linked(text: str, anchors: dict[str, str]) -> Markup:
    """The text, escaped, in which ids of rules lead to their answers."""
    from markupsafe import Markup, escape

    return Markup("").join(
        Markup('<a href="#{}">{}</a>').format(anchors[part], part) if part in anchors else escape(part)
        for part in re.split(r"(FTA\d{3})", visible(text, _MAX_TEXT))
    )


def _bytes(size: int) -> str:
    """`160.1 MiB`."""
    value, units = float(size), ["B", "KiB", "MiB", "GiB", "TiB"]
    while value >= 1024 and len(units) > 1:
        value, units = value / 1024, units[1:]
    return f"{value:,.0f} B" if units[0] == "B" else f"{value:,.1f} {units[0]}"
