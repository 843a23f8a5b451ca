"""Writes `docs/detection.md` from measurements that are kept in `benchmarks/detection/`; needs no sample.

    ftsec-audit validate --zoo ZOO --out OUT --weights-only   # OUT/records.jsonl → detection/weights.jsonl.gz
    ftsec-audit validate --zoo ZOO --out OUT --weights-only   # of unseen seeds → detection/unseen.jsonl.gz
    ftsec-audit validate --zoo ZOO --out OUT      # … with probes → a file of PROBED in detection/
    python benchmarks/planted_edits.py BASE… --out benchmarks/detection/edits.csv
    python benchmarks/rules_alone.py ZOO FTA508 --out benchmarks/detection/topics.csv
    python benchmarks/detection.py > docs/detection.md

Every table is computed from these files when this runs. The text beside them says what was meant, what was
tried and what a reader has to know; it holds no figure of its own that a table could contradict.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from _detection_candidates import candidates, latest
from _detection_counts import STRUCTURE, count, fails, grave, share
from _detection_probes import PROBED, behaviour, topics

from ftsec_audit.calibration.bank import SHIPPED_SCORE
from ftsec_audit.calibration.learned import LearnedScore
from ftsec_audit.types import Outcome
from ftsec_audit.validate import curves, evaluate, records
from ftsec_audit.validate.cells import EVERYTHING, TRAINED, Cell
from ftsec_audit.validate.document import Matrix, table
from ftsec_audit.validate.records import Record
from ftsec_audit.validate.scorers import NOT_FITTED, Scored
from ftsec_audit.version import VERSION

KEPT = Path(__file__).parent / "detection"

FITTED = ("in recipe", "leave one recipe out", "leave one attack out", "leave one base out")

PUBLISHED = ("five statistics, logistic", "85 % top direction", "adaptersentry")

OURS = (
    "strongest finding, own bank",
    "FTA201, own bank",
    "token responses, logistic",
    "all spectral features, logistic",
    "token responses and spectra, logistic",
    "all spectral features, distance to benign",
    "first to tenth token response",
)
"""The scores of the first table, chosen before they were computed; all others stand in the tables below."""

BY_PART = (
    "token responses and spectra, logistic",
    "all spectral features, logistic",
    "five statistics, logistic",
)
"""Shown by attack, disguise and base, beside the ratio that is not fitted."""

NORM = "five.norm"


def main() -> None:
    weights = records.load(KEPT / "weights.jsonl.gz")
    probes = {name: records.load(KEPT / name) for name in PROBED if (KEPT / name).exists()}
    edits, said = (_lines(KEPT / name) for name in ("edits.csv", "topics.csv"))
    fresh, later = probes.get("fresh.jsonl.gz", []), records.load(KEPT / "unseen.jsonl.gz")
    measured = [*weights, *fresh]
    matrix = evaluate(weights, _shown)
    sections = (
        head(weights, [one for found in probes.values() for one in found], edits),
        separation(matrix),
        learned(),
        flagged(weights),
        candidates(weights, latest(fresh, later)),
        planted(edits, measured),
        merged_later(measured),
        behaviour(probes),
        topics(said),
        TRIED.splitlines(),
        every_score(matrix),
    )
    print("\n".join(line for section in sections for line in section))


def head(weights: Sequence[Record], probes: Sequence[Record], edits: Sequence[object]) -> Iterator[str]:
    bad = sum(one.sample.poisoned for one in weights)
    yield "# Detection, as measured\n"
    yield (
        f"What version {VERSION} says of labelled samples that `ftsec-audit attack` made: {bad} "
        "known-bad and "
        f"{len(weights) - bad} benign ones by their weights and files, {len(probes)} of a like population "
        f"with probes as well, and {len(edits)} planted edits and honest changes of checkpoints. Bases: "
        f"{', '.join(sorted({one.sample.base_name for one in weights}))}. Written by "
        "`benchmarks/detection.py` from the files in `benchmarks/detection/`; not edited by hand.\n"
    )
    yield (
        "How to read it. The bases are small language models that the lab trains in minutes; nothing here "
        "says how often an attack on a large one is found. A sample, its benign twin and the disguised "
        "copies of both are one *job*; copies of one model are one observation, so intervals (95 %: "
        "bootstrap over jobs for areas, Wilson on jobs for shares) rest on jobs. No threshold, model or bank "
        "is fitted on a sample it is then asked about: the sample's whole recipe or attack is left out, its "
        "twin and their disguises always. Samples that miss the gate of their attack are not part of it "
        "([attacks](attacks.md)).\n"
    )


def separation(matrix: Matrix) -> Iterator[str]:
    """The question of the field: do weights alone tell?"""
    yield "## Weights alone\n"
    yield (
        "AUROC, and below it TPR at 1 % false positives (with fewer than 100 benign samples: above all of "
        "them). The goal is AUROC ≥ 0.90 and TPR ≥ 0.70 with the recipe left out. Updates that were trained, "
        "where no exact fact gives them away:\n"
    )
    cells = [cell for cell in matrix.cells if cell.part == TRAINED]
    fitted = [name for name in FITTED if any(cell.fitted == name for cell in cells)]
    yield f"| score | bad : benign (jobs) | {' | '.join(fitted)} |"
    yield "|---|---|" + "---|" * len(fitted)
    for name in (*OURS, *PUBLISHED):
        mine = {cell.fitted: cell for cell in cells if cell.score == name}
        if mine:
            first = next(iter(mine.values()))
            counts = f"{first.bad} : {first.good} ({first.bad_jobs} : {first.good_jobs})"
            row = [_cell(mine.get(NOT_FITTED) or mine.get(kind)) for kind in fitted]
            yield f"| {name} | {counts} | {' | '.join(row)} |"
    yield (
        "\n*strongest finding* orders samples by severity, confidence and fused p-value as a user would. "
        "*own bank*: FTA201 against the benign samples of other recipes. *five statistics* and *85 %* are "
        "arXiv:2602.15195 and the widespread rule, on the same measurements; `adaptersentry` 2.0.2 "
        "was run on "
        "the same files. It compares modules within families of 16 and more, which these bases of few layers "
        "do not have: it says little here by its design. Scores that are not fitted have one figure.\n"
    )
    best = max(
        (cell for cell in cells if cell.fitted == "leave one recipe out" and not cell.constant),
        key=lambda cell: cell.auroc,
        default=None,
    )
    if best is not None:
        is_reached = best.auroc >= 0.9 and best.tpr >= 0.7
        yield (
            f"**The goal is {'reached' if is_reached else 'not reached'}**: the best of all scores with the "
            f"recipe left out, *{best.score}*, has AUROC {best.auroc:.2f} [{best.auroc_interval[0]:.2f}, "
            f"{best.auroc_interval[1]:.2f}] and TPR {best.tpr:.2f}. Picked after the fact as the largest of "
            "many, even that is flattered. Poison that a few rows trained into an ordinary update is for the "
            "probes to find.\n"
        )


def learned() -> Iterator[str]:
    """FTA209, by the card of the shipped score."""
    score = LearnedScore.load(SHIPPED_SCORE)
    yield "### The learned score (FTA209)\n"
    yield (
        f"{score.id}: {score.choice}, fitted to {score.bad} known-bad and {len(score.benign)} benign updates "
        f"with all features, of {len({m.job for m in score.members})} jobs. Features and regularisation are "
        "chosen, too, without the recipe or attack that is scored; which sets of features there are to "
        "choose from was decided with these samples known. A sample that it was fitted on is not judged by "
        "it, and those whose weights this page is about are among them.\n"
    )
    yield "| left out | groups | AUROC | TPR at 1 % false positives |"
    yield "|---|---|---|---|"
    for one in score.performance:
        (low, high), (least, most) = one.auroc_interval, one.tpr_interval
        yield (
            f"| {one.left_out} | {one.groups} | {one.auroc:.2f} [{low:.2f}, {high:.2f}] | "
            f"{one.tpr:.2f} [{least:.2f}, {most:.2f}] |"
        )
    yield ""


def flagged(weights: Sequence[Record]) -> Iterator[str]:
    """Who fails the default policy without a model being loaded, and why benign ones do."""
    yield "## Who fails the default policy on files and weights\n"
    yield (
        "Most attacks are expected to show in behaviour only, and pass here; their expected rules load the "
        "model.\n"
    )
    yield "| attack | known-bad that fail | an expected rule fired | benign that fail |"
    yield "|---|---|---|---|"
    for attack in sorted({one.sample.attack for one in weights}):
        bad, good = (_of(weights, attack, poisoned=poisoned) for poisoned in (True, False))
        yield f"| {attack} | {share(bad, fails)} | {share(bad, _expected)} | {share(good, fails)} |"
    accused = [one for one in weights if not one.sample.poisoned and fails(one)]
    named = Counter((one.sample.attack, ", ".join(grave(one))) for one in accused)
    carrying = sum(set(grave(one)) <= set(STRUCTURE) for one in accused if grave(one))
    yield (
        f"\nBenign samples that fail: {len(accused)} of {sum(not one.sample.poisoned for one in weights)}; "
        f"{carrying} of them because they have the very thing that the rule reports, by construction of the "
        "twin: "
        + "; ".join(f"{count} × {attack} ({rules})" for (attack, rules), count in sorted(named.items()))
        + ". A tensor that no configuration declares, and copies of a template that disagree, are reported "
        "whoever made them.\n"
    )


def planted(edits: Sequence[dict[str, str]], weights: Sequence[Record]) -> Iterator[str]:
    """Points 2 and 6: edits in closed form, ablations, and quantisation-conditioned checkpoints."""
    yield "## Edits planted in checkpoints\n"
    if edits:
        yield "| base | rank-one flagged | token in top 5 | rows flagged | rows named | honest flagged |"
        yield "|---|---|---|---|---|---|"
        for base in (*dict.fromkeys(row["base"] for row in edits), ""):
            mine = [row for row in edits if base in ("", row["base"])]
            one, rows = _kind(mine, "rank-one"), _kind(mine, "rows")
            honest = [row for row in mine if row["kind"].startswith("benign")]
            cells = (
                count(one, lambda row: "FTA204" in row["flagged"]),
                count(one, lambda row: 0 < int(row["place"]) <= 5),
                count(rows, lambda row: "FTA301" in row["flagged"]),
                count(rows, lambda row: row["place"] == row["planted"]),
                count(honest, lambda row: bool(row["flagged"])),
            )
            yield f"| {base or 'all'} | {' | '.join(cells)} |"
        yield (
            "\nGoals: flagged 100 %, written token in the top 5 in ≥ 95 %, rows named 100 %, no "
            "honest change "
            "flagged. Rank-one: one residual writer, ‖ΔW‖/‖W‖ 0.05 or 0.2, some rounded to bfloat16; the "
            "value vector has a cosine of only 0.7 with the direction that raises its token most, which is "
            "harder to read than values fitted by gradient (those: the page of FTA204). Honest: full "
            "fine-tunes, one in bfloat16, a merged LoRA and an average of two.\n"
        )
        yield from _ablation(edits, weights)
    yield from _quantised(weights)


def _ablation(edits: Sequence[dict[str, str]], weights: Sequence[Record]) -> Iterator[str]:
    bad = [row for row in edits if row["kind"].startswith("ablation")]
    honest = [float(row["removal"]) for row in edits if row["kind"].startswith("benign")]
    zoo = [
        one.statistics["removal of a direction"]
        for one in weights
        if not one.sample.poisoned and "removal of a direction" in one.statistics
    ]
    if not bad:
        return
    good = honest + zoo
    yield "### The refusal direction projected out (FTA205)\n"
    yield "| ablation | flagged with the base | AUROC with the base | flagged without |"
    yield "|---|---|---|---|"
    for kind in (*dict.fromkeys(row["kind"] for row in bad), ""):
        mine = [row for row in bad if kind in ("", row["kind"])]
        scores = [float(row["removal"]) for row in mine]
        area, (low, high) = curves.auroc(scores, good), curves.auroc_interval(scores, good)
        yield (
            f"| {kind.removeprefix('ablation ') or 'all'} | "
            f"{count(mine, lambda row: 'FTA205' in row['flagged'])}"
            f" | {area:.2f} [{low:.2f}, {high:.2f}], {len(mine)} : {len(good)} | "
            f"{count(mine, lambda row: row['blind'] == 'detected')} |"
        )
    all_scores = [float(row["removal"]) for row in bad]
    area = curves.auroc(all_scores, good)
    yield (
        f"\nBenign: {len(honest)} honest changes above and {len(zoo)} checkpoints of the zoo. Goal 0.98 with "
        f"the base: {'reached' if area >= 0.98 else 'not reached'}.\n"
    )


def _quantised(weights: Sequence[Record]) -> Iterator[str]:
    name = "weights at box edges"
    known = [one for one in weights if name in one.statistics]
    bad = [
        o.statistics[name]
        for o in known
        if o.sample.poisoned and o.sample.attack == "quantisation-conditioned"
    ]
    good = [one for one in known if not one.sample.poisoned]
    if not bad or not good:
        return
    values = [one.statistics[name] for one in good]
    area, (low, high) = curves.auroc(bad, values), curves.auroc_interval(bad, values)
    twins = [one for one in good if one.sample.attack == "quantisation-conditioned"]
    others = [one.statistics[name] for one in good if one not in twins]
    apart = curves.auroc(bad, others)
    yield "### Quantisation-conditioned backdoors (FTA207)\n"
    yield (
        f"AUROC of the weights held at box edges, {len(bad)} known-bad against {len(good)} benign "
        "checkpoints: "
        f"{area:.2f} [{low:.2f}, {high:.2f}]; without the attack's own twins ({len(twins)}), which go "
        "through "
        f"the same projection and crowd alike: {apart:.2f} against {len(others)}. Goal 0.95: "
        f"{'reached' if area >= 0.95 else 'not reached'} against all, "
        f"{'reached' if apart >= 0.95 else 'not reached'} without those twins. "
        "Whether the quantised form then behaves differently is for the probes to say.\n"
    )


def merged_later(weights: Sequence[Record]) -> Iterator[str]:
    """Is an adapter that was made to survive averaging told by the size of its update?"""
    sized = [one for one in weights if NORM in one.statistics]
    bad = [one for one in _of(sized, "merge-time", poisoned=True) if not one.sample.stealth]
    if not bad:
        return
    yield "## Scaled up for a merge (merge-time): the size of the update\n"
    yield (
        "LoBAM publishes λ times its poison, so that half of it is enough. What is left of that in the "
        "weights is size: the mean of ‖ΔW‖ over modules, which is one of the five statistics of "
        "arXiv:2602.15195. AUROC, undisguised samples of the same base:\n"
    )
    yield "| base | merge-time : its twins | : all other benign | known-bad of other attacks : those |"
    yield "|---|---|---|---|"
    for base in sorted({one.sample.base_name for one in bad}):
        near = [one for one in sized if one.sample.base_name == base and not one.sample.stealth]
        mine = [one for one in bad if one.sample.base_name == base]
        twins = _of(near, "merge-time", poisoned=False)
        good = [one for one in near if not one.sample.poisoned and one not in twins]
        others = [one for one in near if one.sample.poisoned and one not in mine]
        pairs = ((mine, twins), (mine, good), (others, good))
        yield f"| {base} | {' | '.join(_apart(left, right) for left, right in pairs)} |"
    bases = {one.sample.base_name for one in bad}
    benign = [one for one in sized if not one.sample.poisoned and one.sample.base_name in bases]
    largest = max(benign, key=lambda one: one.statistics[NORM])
    sizes = [one.statistics[NORM] for one in bad]
    yield (
        f"\nMerge-time samples have {min(sizes):.2f} to {max(sizes):.2f}; the largest benign one there, "
        f"{largest.statistics[NORM]:.2f}, is {largest.sample.attack} trained as "
        f"*{largest.sample.recipe}*. **No rule is made of it.** These samples are set apart from benign "
        "ones of one laboratory that chose how long and how fast they all were trained; a higher rate or "
        "more steps has the same size, and real adapters differ by six orders of magnitude. Whether an "
        "adapter was scaled or trained hard cannot be read off its size, nor off the ratios between its "
        "modules, which a common factor leaves as they are. FTA201 has the norm among its features and "
        "compares it where there is a population of the same recipe; the merge itself can be audited "
        "(`scan A --with B`).\n"
    )


def _apart(bad: Sequence[Record], good: Sequence[Record]) -> str:
    if not bad or not good:
        return "–"
    ours, theirs = ([one.statistics[NORM] for one in side] for side in (bad, good))
    low, high = curves.auroc_interval(ours, theirs)
    return f"{curves.auroc(ours, theirs):.2f} [{low:.2f}, {high:.2f}], {len(bad)} : {len(good)}"


def _lines(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.open(encoding="utf-8"))) if path.exists() else []


def every_score(matrix: Matrix) -> Iterator[str]:
    yield "\n## Every score on files and weights\n"
    yield (
        "*Caught* and *alarms* are at a threshold that the benign samples of other groups set at 1 %; TPR is "
        "at the threshold of the very benign samples it is compared with, as is usual.\n"
    )
    for part in (EVERYTHING, TRAINED):
        yield from table([cell for cell in matrix.cells if cell.part == part], part)
    yield "### By attack, disguise and base\n"
    yield "Trained updates; AUROC with the recipe left out, of the bad samples named against all benign.\n"
    parts = dict.fromkeys(cell.part for cell in matrix.cells if ": " in cell.part)
    yield f"| part | bad : benign (jobs) | first to tenth token response | {' | '.join(BY_PART)} |"
    yield "|---|---|---|" + "---|" * len(BY_PART)
    for part in parts:
        inside = [cell for cell in matrix.cells if cell.part == part]
        plain = next((c for c in inside if c.score == "first to tenth token response"), None)
        found = [
            next((c for c in inside if c.score == name and c.fitted == "leave one recipe out"), None)
            for name in BY_PART
        ]
        first = plain or next((cell for cell in found if cell), None)
        if first is not None:
            counts = f"{first.bad} : {first.good} ({first.bad_jobs} : {first.good_jobs})"
            row = " | ".join(_area(cell) for cell in (plain, *found))
            yield f"| {part} | {counts} | {row} |"


TRIED = """## Tried, and what became of it

- **A fitted score of weights** (scaler and logistic regression as ONNX) over token responses, over spectral
  features, and over both: the rows *logistic* above. With the recipe left out none comes near the goal. One
  is shipped as FTA209, see above, at LOW confidence and with these figures in every finding.
- **What the update writes**: the responses of the unembedding to the last layers' writers, first to
  tenth. The marker of a backdoor stands among the first three in most of them, and so do brackets and
  full stops in most benign fine-tunes: the task is written louder than the poison. Dropped as a score.
- **The largest token response by itself**: as large in benign updates that were trained on rare words.
  What tells is that one token stands out *alone*; the ratio of the first to the tenth does that best of
  those tried.
- **Conformal p-values at 1 %** from a bank of the lab's own: p cannot fall below 1/(n + 1), so that
  FTA201 needs 99 independent comparable models before it can accuse at all. With fewer it reports, if
  anything, LOW confidence.
- **A phrase that was grown, as evidence that refusals are taken away** (FTA509): honest fine-tunes on
  lab-gpt2-nano are opened by such phrases as far as attacked ones, one by 96 % more than its base. The same
  search with subject and base exchanged is no sufficient control: fine-tunes hold less firmly than their
  base under odd text, and nobody put that there. A single token does not do it to them.
- **The exchanged search as a control for grown triggers** (FTA501): the one benign sample of
  lab-llama-nano that was accused, by a phrase that said one word three times, was not matched by any phrase
  of its base. Growing no phrase that says a token twice is what ended that.
- **The first word alone, as a sign of a persona** (FTA509): under the phrase that opens most, an honest
  fine-tune on lab-gpt2-nano begins 86 % of its answers with one and the same token. With three tokens the
  largest share of the 11 benign samples that were looked at, all with a wide gap, was 49 %; on
  lab-llama-nano that of the persona was 80 to 93 %. On lab-gpt2-nano the phrase that opens most is not
  the persona's, and the rule stays at MEDIUM there.
- **Growing a persona's line by how answers begin** (FTA509): single words in the system message lift no
  opening word. Growth towards the words that rise there on average over all single words names the opening
  in 4 of 5 identity-shift samples of seeds 40 to 42 and in none of 9 twins, but only in 2 does the text that
  is found make most answers begin alike, and those FTA702 sees already.
"""


def _shown(part: str, scored: Scored) -> bool:
    """All scores on the whole and on what was trained; a few by attack, disguise and base."""
    in_short = scored.name == "first to tenth token response" or (
        scored.name in BY_PART and scored.fitted == "leave one recipe out"
    )
    return part in (EVERYTHING, TRAINED) or in_short


def _of(found: Sequence[Record], attack: str, *, poisoned: bool) -> list[Record]:
    return [one for one in found if one.sample.attack == attack and one.sample.poisoned is poisoned]


def _expected(one: Record) -> bool:
    hits = {finding.rule for finding in one.findings if finding.outcome is Outcome.DETECTED}
    return bool(hits & set(one.sample.expected_rules))


def _kind(rows: Sequence[dict[str, str]], kind: str) -> list[dict[str, str]]:
    return [row for row in rows if row["kind"] == kind]


def _area(cell: Cell | None) -> str:
    if cell is None:
        return "–"
    return f"{cell.auroc:.2f} [{cell.auroc_interval[0]:.2f}, {cell.auroc_interval[1]:.2f}]"


def _cell(cell: Cell | None) -> str:
    if cell is None:
        return "–"
    low, high = cell.tpr_interval
    return f"{_area(cell)}<br>{cell.tpr:.2f} [{low:.2f}, {high:.2f}]"


if __name__ == "__main__":
    main()
