"""The cells of the validation matrix: a way to score × a part of the population, with intervals."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from ftsec_audit.validate import curves
from ftsec_audit.validate.curves import Interval
from ftsec_audit.validate.population import Labelled
from ftsec_audit.validate.scorers import Scored

FALSE_POSITIVE_RATE = 0.01
EVERYTHING = "everything"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """How well one score separates one part of the population."""

    score: str
    fitted: str
    part: str
    """`everything`, or a kind and a value: `attack: token-backdoor`, `stealth: gauge`."""
    bad: int
    """Known-bad samples with a score."""
    good: int
    """Benign samples with a score."""
    abstained: int
    """Samples of this part, of either label, without one."""
    auroc: float
    auroc_interval: Interval
    hits: int
    """Bad samples above the threshold at `FALSE_POSITIVE_RATE`."""
    tpr_interval: Interval

    constant: bool
    """Every sample has the same score."""

    @property
    def tpr(self) -> float:
        return self.hits / self.bad if self.bad else float("nan")


def cells(samples: Sequence[Labelled], scored: Sequence[Scored]) -> list[Cell]:
    """Every score on every part that has samples of both labels."""
    return [
        cell
        for part, inside in _parts(samples)
        for one in scored
        if (cell := _cell(part, [sample for sample in samples if inside(sample)], one)) is not None
    ]


def _parts(samples: Sequence[Labelled]) -> Iterator[tuple[str, Callable[[Labelled], bool]]]:
    """The bad samples of an attack or disguise face every benign sample; those of a base, the base's own."""
    yield EVERYTHING, lambda _: True
    bad = [sample for sample in samples if sample.poisoned]
    for attack in sorted({sample.attack for sample in bad}):
        yield f"attack: {attack}", lambda s, attack=attack: not s.poisoned or s.attack == attack  # type: ignore[misc]
    for disguise in sorted({_disguise(sample) for sample in bad}):
        yield f"stealth: {disguise}", lambda s, d=disguise: not s.poisoned or _disguise(s) == d  # type: ignore[misc]
    for base in sorted({sample.base_name for sample in bad}):
        yield f"base: {base}", lambda s, base=base: s.base_name == base  # type: ignore[misc]


def _disguise(sample: Labelled) -> str:
    return " + ".join(sample.stealth) or "none"


def _cell(part: str, samples: Sequence[Labelled], scored: Scored) -> Cell | None:
    pairs = [(sample.poisoned, scored.scores.get(sample.key)) for sample in samples]
    bad = [score for poisoned, score in pairs if poisoned and score is not None]
    good = [score for poisoned, score in pairs if not poisoned and score is not None]
    if not bad or not good:
        return None
    hits = curves.hits_above(bad, good, FALSE_POSITIVE_RATE)
    return Cell(
        score=scored.name,
        fitted=scored.fitted,
        part=part,
        bad=len(bad),
        good=len(good),
        abstained=len(pairs) - len(bad) - len(good),
        auroc=curves.auroc(bad, good),
        auroc_interval=curves.auroc_interval(bad, good),
        hits=hits,
        tpr_interval=curves.wilson(hits, len(bad)),
        constant=len({*bad, *good}) == 1,
    )
