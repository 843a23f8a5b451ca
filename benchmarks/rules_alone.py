"""What do some rules say of every sample of a labelled zoo, asked alone? One line of CSV each, resumable.

    ftsec-audit attack --zoo smoke --out ZOO
    python benchmarks/rules_alone.py ZOO FTA508 FTA507 --out said.csv [--profile deep]

Every accepted sample is scanned with its base; lines that are there already are not asked again.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from ftsec_audit.api import scan_with
from ftsec_audit.scan_options import ScanOptions
from ftsec_audit.session import KeptBase
from ftsec_audit.types import Profile
from ftsec_audit.validate.population import Located, labelled

COLUMNS = (
    "key", "attack", "base", "poisoned", "seed", "rule", "outcome", "severity", "confidence", "p", "trigger",
    "target", "summary",
)  # fmt: skip


def said(
    sample: Located, rules: Sequence[str], profile: Profile, kept: KeptBase
) -> Iterator[dict[str, object]]:
    """The findings of `rules` on one sample."""
    options = ScanOptions(base=str(sample.base), select=rules, profile=profile, device="cpu", offline=True)
    report = scan_with(str(sample.folder), options, kept_base=kept)
    for finding in report.findings:
        if not finding.rule.startswith(tuple(rules)):
            continue
        details = finding.evidence[0].details if finding.evidence else {}
        yield {
            "key": sample.key,
            "attack": sample.attack,
            "base": sample.base_name,
            "poisoned": sample.poisoned,
            "seed": sample.seed,
            "rule": finding.rule,
            "outcome": finding.outcome.value,
            "severity": finding.severity.value,
            "confidence": finding.confidence.value,
            "p": finding.p_value,
            "trigger": details.get("trigger", ""),
            "target": details.get("target", ""),
            "summary": finding.summary,
        }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("zoo", type=Path)
    parser.add_argument("rules", nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--profile", type=Profile, default=Profile.STANDARD)
    arguments = parser.parse_args()
    done = {line["key"] for line in csv.DictReader(arguments.out.open())} if arguments.out.exists() else set()
    kept = KeptBase()
    with arguments.out.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if not done:
            writer.writeheader()
        for sample in labelled(arguments.zoo):
            if sample.key not in done:
                writer.writerows(said(sample, arguments.rules, arguments.profile, kept))
                file.flush()


if __name__ == "__main__":
    main()
