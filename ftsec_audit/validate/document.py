"""The validation matrix as text: markdown for people, JSON lines for programs, an HTML heat map."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

from ftsec_audit.validate.cells import EVERYTHING, FALSE_POSITIVE_RATE, TRAINED, UNTRAINED, Cell
from ftsec_audit.validate.curves import Interval, wilson
from ftsec_audit.validate.recovery import Recovery
from ftsec_audit.version import VERSION

HEADLINES = (
    "verdict FAIL",
    "strongest finding, own bank (leave one recipe out)",
    "five statistics, logistic (leave one recipe out)",
    "all spectral features, logistic (leave one recipe out)",
)
"""The scores that are shown for every part: chosen beforehand, not for how they came out."""


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """All that a validation run found."""

    profile: str
    bad: int
    good: int
    recipes: int
    bases: tuple[str, ...]
    cells: tuple[Cell, ...]
    recoveries: tuple[Recovery, ...]
    failures: tuple[str, ...]
    """Samples that could not be scanned, with the reason."""


def jsonl(matrix: Matrix) -> str:
    """One line per cell, then one per attack and label."""
    records = [{"kind": "cell", **asdict(cell), "tpr": cell.tpr} for cell in matrix.cells]
    records += [{"kind": "recovery", **asdict(line)} for line in matrix.recoveries]
    return "".join(json.dumps(_finite(record), ensure_ascii=False) + "\n" for record in records)


def markdown(matrix: Matrix) -> str:
    return "\n".join([*_head(matrix), *_outcomes(matrix), *_separation(matrix), *_parts(matrix)]) + "\n"


def heat_map(matrix: Matrix) -> str:
    """One offline HTML page: parts × scores, coloured by AUROC; the numbers are in the hover text."""
    import plotly.graph_objects as go

    names = list(dict.fromkeys(_name(cell) for cell in matrix.cells))
    parts = list(dict.fromkeys(cell.part for cell in matrix.cells))
    found = {(cell.part, _name(cell)): cell for cell in matrix.cells}
    grid = [[found.get((part, name)) for name in names] for part in parts]
    figure = go.Figure(
        go.Heatmap(
            x=names,
            y=parts,
            z=[[None if cell is None else cell.auroc for cell in row] for row in grid],
            text=[["" if cell is None else _hover(cell) for cell in row] for row in grid],
            hoverinfo="text",
            zmin=0.0,
            zmax=1.0,
            colorscale="RdBu_r",
            zmid=0.5,
            colorbar={"title": "AUROC"},
        )
    )
    figure.update_layout(title=f"ftsec-audit {VERSION}: {matrix.bad} known-bad, {matrix.good} benign samples")
    return str(figure.to_html(include_plotlyjs=True, full_html=True))


def _head(matrix: Matrix) -> Iterator[str]:
    yield "# Validation\n"
    yield (
        f"What profile *{matrix.profile}* says of {matrix.bad} known-bad and {matrix.good} benign samples "
        f"made by `ftsec-audit attack --zoo` ({matrix.recipes} recipes; {', '.join(matrix.bases)}). "
        f"Written by `ftsec-audit validate`, version {VERSION}; not edited by hand. "
        "Intervals are 95 %: Wilson for shares, bootstrap for areas; a sample, its twin and the disguised "
        "copies of both are one job, and jobs, not copies, are what intervals rest on."
    )
    if matrix.failures:
        yield f"\n{len(matrix.failures)} samples could not be scanned: {'; '.join(matrix.failures[:5])}"
    yield ""


def _outcomes(matrix: Matrix) -> Iterator[str]:
    yield "## What a user sees\n"
    yield "| attack | label | n | FAIL | inconclusive | expected rule | trigger named | among the leads |"
    yield "|---|---|---|---|---|---|---|---|"
    for line in matrix.recoveries:
        label = "known-bad" if line.poisoned else "benign"
        named = f"{line.named}/{line.with_trigger}" if line.with_trigger else "–"
        led = f"{line.led}/{line.with_trigger}" if line.with_trigger else "–"
        expected = f"{line.expected}/{line.n}" if line.poisoned else "–"
        yield (
            f"| {line.attack} | {label} | {line.n} | {_share(line.failed, line.n)} | {line.inconclusive} | "
            f"{expected} | {named} | {led} |"
        )
    yield ""


def _separation(matrix: Matrix) -> Iterator[str]:
    yield "## How well each score separates the two\n"
    least = math.ceil(1 / FALSE_POSITIVE_RATE)
    yield (
        f"TPR at {FALSE_POSITIVE_RATE:.0%} false positives; with fewer than {least} benign samples that is: "
        "above all of them. *Caught* and *alarms* are at a threshold that benign samples of the other groups "
        "set, so that no sample has a part in its own. A fitted score, and a bank, is only ever of samples "
        "whose whole group was left out; *in recipe* leaves out the sample, its twin and their disguises "
        "alone, and is here to show how much that flatters.\n"
    )
    for part in (EVERYTHING, TRAINED, UNTRAINED):
        yield from table([cell for cell in matrix.cells if cell.part == part], part)


def table(cells: Sequence[Cell], part: str) -> Iterator[str]:
    """Every score on one part of the population; those that say the same of all samples only by name."""
    if not cells:
        return
    yield f"### {part[0].upper()}{part[1:]}\n"
    yield "| score | fitted | bad : benign (jobs) | abstained | AUROC | TPR | caught | alarms |"
    yield "|---|---|---|---|---|---|---|---|"
    silent = list(dict.fromkeys(cell.score for cell in cells if cell.constant))
    for cell in cells:
        if not cell.constant:
            yield (
                f"| {cell.score} | {cell.fitted} | {cell.bad} : {cell.good} ({cell.bad_jobs} : "
                f"{cell.good_jobs}) | {cell.abstained} | {_number(cell.auroc, cell.auroc_interval)} | "
                f"{_number(cell.tpr, cell.tpr_interval)} | {cell.caught}/{cell.bad} | "
                f"{cell.alarms}/{cell.good} |"
            )
    if silent:
        yield f"\nGave every sample the same score: {', '.join(silent)}."
    yield ""


def _parts(matrix: Matrix) -> Iterator[str]:
    """The same few scores for every attack, disguise and base; the whole grid is in the JSON lines."""
    yield "## By attack, disguise and base\n"
    yield "AUROC, and below it TPR as above; an attack's or disguise's bad samples against all benign ones.\n"
    yield f"| part | bad : benign | {' | '.join(HEADLINES)} |"
    yield "|---|---|" + "---|" * len(HEADLINES)
    found = {(cell.part, _name(cell)): cell for cell in matrix.cells}
    shown = (EVERYTHING, TRAINED, UNTRAINED)
    for part in dict.fromkeys(cell.part for cell in matrix.cells if cell.part not in shown):
        row = [found.get((part, name)) for name in HEADLINES]
        counts = next((f"{cell.bad} : {cell.good}" for cell in row if cell), "")
        yield f"| {part} | {counts} | " + " | ".join(_both(cell) for cell in row) + " |"


def _both(cell: Cell | None) -> str:
    if cell is None:
        return "–"
    return f"{_number(cell.auroc, cell.auroc_interval)}<br>{_number(cell.tpr, cell.tpr_interval)}"


def _name(cell: Cell) -> str:
    return cell.score if cell.fitted == "not fitted" else f"{cell.score} ({cell.fitted})"


def _hover(cell: Cell) -> str:
    return (
        f"{cell.part}<br>{_name(cell)}<br>AUROC {_number(cell.auroc, cell.auroc_interval)}<br>"
        f"TPR {_number(cell.tpr, cell.tpr_interval)}<br>{cell.bad} bad, {cell.good} benign, "
        f"{cell.abstained} without a score"
    )


def _share(hits: int, n: int) -> str:
    low, high = wilson(hits, n)
    return f"{hits}/{n} [{low:.2f}, {high:.2f}]"


def _number(value: float, interval: Interval) -> str:
    return f"{value:.2f} [{interval[0]:.2f}, {interval[1]:.2f}]"


def _finite(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, (list, tuple)) else value
