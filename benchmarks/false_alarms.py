"""How often is a real, presumed-benign adapter accused? Writes the table of `docs/false-alarms.md`.

    python benchmarks/false_alarms.py DATA [--peer ADAPTERSENTRY] [--out docs/false-alarms.md]

DATA holds `manifest.json`, a list of objects with `dir`, `repo`, `path`, `base`, `peft` and `r`. Every
adapter is scanned with the shipped calibration minus its own repository. With `--peer`, the
`adaptersentry` executable judges the same weight files.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftsec_audit.api import scan
from ftsec_audit.calibration.bank import Calibration
from ftsec_audit.types import Confidence, Finding, Outcome, Report, Severity
from ftsec_audit.version import VERSION

INTRO = """# False alarms on real adapters

What happens when `ftsec-audit scan` meets ordinary adapters. All {n} are public, presumed benign and of
{repositories} repositories; none is proven benign. Each was scanned without a base (`--no-base`), in the
profiles *standard*, whose findings are listed, and *quick*, and judged by the shipped calibration **without
any adapter of its own repository**, so no adapter is compared with itself or its siblings. Written by
`benchmarks/false_alarms.py` with version {version}; not edited by hand.

How to read it: what the comparison with a base would say is not part of this table, the bases are not at
hand. And no stratum of the shipped pack reaches the 20 independent repositories from which on FTA201 and
FTA202 may claim more than LOW confidence; that none does is by design, not a measured specificity. What is
measured is how often the statistics raise anything at all.
"""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One adapter and both programs' answers."""

    entry: dict[str, Any]
    report: Report
    """Profile standard, without a base."""
    quick: Report
    peer: str

    @property
    def hits(self) -> list[Finding]:
        return [
            f for f in self.report.findings if f.outcome is Outcome.DETECTED and f.severity >= Severity.LOW
        ]

    @property
    def confident(self) -> list[Finding]:
        return [finding for finding in self.hits if finding.confidence > Confidence.LOW]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--peer", type=Path)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rows = list(_rows(options.data, options.peer))
    text = "\n".join(_document(rows, peer=options.peer is not None)) + "\n"
    if options.out:
        options.out.write_text(text)
    print(text)


def _rows(data: Path, peer: Path | None) -> Iterator[Row]:
    shipped = Calibration.load()
    for entry in json.loads((data / "manifest.json").read_text()):
        folder = data / entry["dir"]
        options: dict[str, Any] = {
            "no_base": True,
            "offline": True,
            "cache": False,
            "calibration": shipped.excluding([entry["repo"]]),
        }
        yield Row(
            entry=entry,
            report=scan(str(folder), **options),
            quick=scan(str(folder), profile="quick", **options),
            peer=_peer(peer, folder) if peer else "",
        )


def _peer(executable: Path, folder: Path) -> str:
    """What adaptersentry says: its verdict and why, or how it ended."""
    weights = sorted(p for p in folder.rglob("*") if p.suffix in (".safetensors", ".bin"))
    command = [str(executable), "scan", str(weights[0]), "--format", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
    try:
        verdict: dict[str, Any] = json.loads(done.stdout)["verdict"]
    except (ValueError, KeyError):
        return f"exit {done.returncode}"
    reasons = [str(reason["code"]) for reason in verdict["reasons"]]
    # Every verdict carries NO_REFERENCE_PROFILE: the program ships none for any family here.
    telling = [reason for reason in reasons if reason != "NO_REFERENCE_PROFILE"]
    return str(verdict["action"]) + (f" ({', '.join(telling)})" if telling else "")


def _document(rows: Sequence[Row], *, peer: bool) -> Iterator[str]:
    repositories = len({row.entry["repo"] for row in rows})
    yield INTRO.format(n=len(rows), repositories=repositories, version=VERSION)
    yield "## Summary\n"
    yield "| | adapters | share | 95 % interval (Wilson) |\n|---|---|---|---|"
    counts = {
        "any detection of LOW severity or more": sum(bool(row.hits) for row in rows),
        "above LOW confidence": sum(bool(row.confident) for row in rows),
        "above LOW confidence and MEDIUM severity or more": sum(
            any(f.severity >= Severity.MEDIUM for f in row.confident) for row in rows
        ),
        "a rule ended in an error": sum(
            any(f.outcome is Outcome.ERROR for f in row.report.findings) for row in rows
        ),
    }
    for name, count in counts.items():
        yield _share(name, count, len(rows))
    if peer:
        asked = sum(not row.peer.startswith("allow") for row in rows)
        yield _share("`adaptersentry` 2.0.2: anything but *allow*", asked, len(rows))
    yield "\nVerdicts of the default policy:\n"
    yield f"- *quick*: {_verdicts([row.quick for row in rows])}"
    yield f"- *standard*, without a base: {_verdicts([row.report for row in rows])}; this policy wants the"
    yield "  rules that compare with a base answered\n"
    yield "Adapters of one repository resemble each other: the intervals are narrower than they should be.\n"
    yield "## Every adapter\n"
    header = ["repository", "path", "base", "method", "quick verdict", "findings of LOW or more"]
    header += ["adaptersentry"] if peer else []
    yield "| " + " | ".join(header) + " |\n" + "|---" * len(header) + "|"
    for row in rows:
        yield "| " + " | ".join(_cells(row, peer)) + " |"
    yield "\n## Rules without an answer\n"
    yield "| rule | outcome | adapters | for example |\n|---|---|---|---|"
    yield from _open_rules(rows)


def _verdicts(reports: Sequence[Report]) -> str:
    counts = Counter(str(report.verdict) for report in reports)
    return ", ".join(f"{verdict} {count}" for verdict, count in sorted(counts.items()))


def _share(name: str, count: int, n: int) -> str:
    low, high = wilson(count, n)
    return f"| {name} | {count} of {n} | {100 * count / n:.1f} % | {100 * low:.1f}–{100 * high:.1f} % |"


def wilson(count: int, n: int, z: float = 1.959964) -> tuple[float, float]:
    """The 95 % Wilson score interval of a share."""
    share, weight = count / n, z * z / n
    centre = share + weight / 2
    spread = z * math.sqrt(share * (1 - share) / n + weight / (4 * n))
    return max(0.0, (centre - spread) / (1 + weight)), min(1.0, (centre + spread) / (1 + weight))


def _cells(row: Row, peer: bool) -> list[str]:
    entry = row.entry
    findings = "; ".join(f"{f.rule} {f.severity}/{f.confidence}" for f in row.hits) or "–"
    method = f"{entry['peft'] or '?'}" + (f" r={entry['r']}" if entry["r"] else "")
    cells = [entry["repo"], entry["path"], entry["base"] or "?", method, str(row.quick.verdict), findings]
    return cells + ([row.peer] if peer else [])


def _open_rules(rows: Sequence[Row]) -> Iterator[str]:
    open_answers = [
        finding for row in rows for finding in row.report.findings if not finding.outcome.is_answer
    ]
    counts = Counter((finding.rule, str(finding.outcome)) for finding in open_answers)
    for (rule, outcome), count in sorted(counts.items()):
        example = next(f.summary for f in open_answers if (f.rule, str(f.outcome)) == (rule, outcome))
        yield f"| {rule} | {outcome} | {count} | {example.replace('|', '/')[:160]} |"


if __name__ == "__main__":
    main()
