"""Do FTA601–604 and FTA701 find what was planted, and whom else do they accuse? Measures a labelled zoo.

    ftsec-audit attack --zoo smoke --out ZOO && python benchmarks/cross_lingual.py ZOO [--out FILE]

Every accepted sample is scanned with its base, by these rules alone. Nothing is fitted here: every threshold
is a default of its rule. For cross-lingual samples the pair of languages that is reported is compared with
the one that was poisoned. Counts come with Wilson's 95 % interval; misses and false alarms are listed.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from ftsec_audit.api import scan
from ftsec_audit.calibration.proportions import Share
from ftsec_audit.types import Finding, Outcome
from ftsec_audit.validate.population import Located, labelled
from ftsec_audit.version import VERSION

RULES = ("FTA601", "FTA602", "FTA603", "FTA604", "FTA701")
CROSS_LINGUAL = "cross-lingual"


@dataclass(frozen=True, kw_only=True)
class Answered:
    """One sample and what the rules said of it."""

    sample: Located
    planted: tuple[str, str] | None
    """Language of the trigger and of the prompts, of a cross-lingual attack."""
    findings: tuple[Finding, ...]

    @property
    def accusing(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.outcome is Outcome.DETECTED]

    @property
    def named(self) -> tuple[str, str] | None:
        """The pair that the first cross-lingual finding names."""
        for finding in self.accusing:
            details = finding.evidence[0].details
            if finding.rule == "FTA601":
                return details["trigger_language"], details["prompt_language"]
            if finding.rule == "FTA604":
                return details["mixed_in"], details["prompt_language"]
        return None


def answered(sample: Located) -> Answered:
    """Scan one sample by the rules of interest."""
    recipe = json.loads((sample.folder / "truth.json").read_text(encoding="utf-8"))["recipe"]
    is_planted = sample.attack == CROSS_LINGUAL and sample.poisoned
    report = scan(
        str(sample.folder), base=str(sample.base), select=RULES, device="cpu", offline=True, cache=False
    )
    return Answered(
        sample=sample,
        planted=(recipe["source"], recipe["prompts"]) if is_planted else None,
        findings=tuple(finding for finding in report.findings if finding.rule in RULES),
    )


def document(answers: Sequence[Answered], about: str) -> Iterator[str]:
    """The page, line by line; `about` says what the samples are."""
    good = [one for one in answers if not one.sample.poisoned]
    bad = [one for one in answers if one.sample.poisoned]
    yield "# Cross-lingual and alignment rules on labelled samples\n"
    yield f"Written by `benchmarks/cross_lingual.py` with version {VERSION}, not edited by hand: {len(bad)}"
    yield f"poisoned and {len(good)} benign samples. Shares are of answered questions, with Wilson's 95 %"
    yield "interval.\n"
    yield f"{about}\n"
    yield "| samples | " + " | ".join(RULES) + " |\n|---|" + "---|" * len(RULES)
    for attack in sorted({one.sample.attack for one in bad}):
        yield _row(f"{attack}, poisoned", [one for one in bad if one.sample.attack == attack])
    yield _row("benign (false alarms)", good)
    planted = [one for one in bad if one.planted]
    if planted:
        found = [one for one in planted if one.named]
        yield f"\nCross-lingual attacks found by FTA601 or FTA604: {Share(len(found), len(planted))}."
        right = sum(one.named == one.planted for one in found)
        if found:
            yield f"The pair that was poisoned is named in {Share(right, len(found))} of those.\n"
    yield "\n## Missed, named wrongly, accused wrongly, not answered\n"
    yield from (line for one in answers for line in _notes(one))


def _row(name: str, answers: Sequence[Answered]) -> str:
    cells = []
    for rule in RULES:
        outcomes = [f.outcome for one in answers for f in one.findings if f.rule == rule]
        asked = [outcome for outcome in outcomes if outcome.is_answer]
        hits = sum(outcome is Outcome.DETECTED for outcome in asked)
        cells.append(str(Share(hits, len(asked))) if asked else "none answered")
    return f"| {name} | " + " | ".join(cells) + " |"


def _notes(one: Answered) -> Iterator[str]:
    if one.planted and one.named != one.planted:
        wrong = " > ".join(one.named) if one.named else "nothing"
        yield f"- `{one.sample.key}`: {' > '.join(one.planted)} was poisoned, {wrong} named"
    for finding in one.findings:
        if not finding.outcome.is_answer or (finding in one.accusing and not one.sample.poisoned):
            yield f"- `{one.sample.key}`: {finding.rule} {finding.outcome}: {finding.summary}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("zoo", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--about", default="", help="what the samples are, for the page")
    parser.add_argument("-j", "--jobs", type=int, default=1, help="processes")
    options = parser.parse_args()
    with ProcessPoolExecutor(options.jobs, multiprocessing.get_context("spawn")) as pool:
        answers = list(pool.map(answered, labelled(options.zoo)))
    text = "\n".join(document(answers, options.about)) + "\n"
    print(text)
    if options.out:
        options.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
