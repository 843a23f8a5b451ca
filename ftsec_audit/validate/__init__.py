"""How well do the detectors do? A labelled population, scanned, scored, and tabulated with intervals.

The one place where reference attacks and detectors meet.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ftsec_audit.contracts import Progress

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ftsec_audit.validate.document import Matrix
    from ftsec_audit.validate.records import Record
    from ftsec_audit.validate.scorers import Scored

BEHAVIOUR = ("FTA5", "FTA6", "FTA7")
"""Rules that load the model, by prefix."""


def measure(
    zoo: Path,
    store: Path,
    *,
    profile: str = "standard",
    ignore: Sequence[str] = (),
    workers: int = 1,
    adaptersentry: Path | None = None,
    progress: Progress | None = None,
) -> list[Record]:
    """Scan the accepted samples of `zoo`, keeping reports in `store`; without the rules of `ignore`.

    With the executable `adaptersentry` that program judges the same samples. Raises UsageError when the zoo
    is empty. Run again, it scans only what is new or judged by changed code.
    """
    from ftsec_audit.validate import peer
    from ftsec_audit.validate.examine import examine
    from ftsec_audit.validate.population import labelled
    from ftsec_audit.validate.records import record

    samples = labelled(zoo, progress=progress)
    examined = examine(samples, store, profile=profile, ignore=ignore, workers=workers, progress=progress)
    decided: dict[str, str] = {}
    if adaptersentry is not None:
        decided = peer.adaptersentry(
            adaptersentry, samples, store.parent / "adaptersentry", progress=progress
        )
    return [record(one, profile, decided.get(one.sample.key, "")) for one in examined]


def evaluate(records: Sequence[Record], wanted: Callable[[str, Scored], bool] | None = None) -> Matrix:
    """Every score of scanned samples, on every part of the population, or those that are wanted."""
    from ftsec_audit.validate.cells import cells
    from ftsec_audit.validate.document import Matrix
    from ftsec_audit.validate.recovery import recovery
    from ftsec_audit.validate.scorers import every_score

    samples = [one.sample for one in records]
    return Matrix(
        profile=", ".join(sorted({one.profile for one in records})),
        bad=sum(sample.poisoned for sample in samples),
        good=sum(not sample.poisoned for sample in samples),
        recipes=len({sample.recipe for sample in samples}),
        bases=tuple(sorted({sample.base_name for sample in samples})),
        cells=tuple(cells(samples, every_score(records), *([wanted] if wanted else []))),
        recoveries=tuple(recovery(records)),
        failures=tuple(f"{one.sample.key} ({one.error})" for one in records if not one.is_scanned),
    )
