"""How well do the detectors do? A labelled population, scanned, scored, and tabulated with intervals.

The one place where reference attacks and detectors meet.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ftsec_audit.contracts import Progress

if TYPE_CHECKING:
    from ftsec_audit.validate.document import Matrix


def validate(
    zoo: Path,
    store: Path,
    *,
    profile: str = "standard",
    workers: int = 1,
    adaptersentry: Path | None = None,
    progress: Progress | None = None,
) -> Matrix:
    """Scan the accepted samples of `zoo`, keeping reports in `store`, and score them.

    With the executable `adaptersentry` that program judges the same samples. Raises UsageError when the zoo
    is empty. Run again, it scans only what is new or judged by changed code.
    """
    from ftsec_audit.validate import peer
    from ftsec_audit.validate.cells import cells
    from ftsec_audit.validate.document import Matrix
    from ftsec_audit.validate.examine import examine
    from ftsec_audit.validate.population import labelled
    from ftsec_audit.validate.recovery import recovery
    from ftsec_audit.validate.scorers import every_score

    samples = labelled(zoo, progress=progress)
    examined = examine(samples, store, profile=profile, workers=workers, progress=progress)
    scored = every_score(examined)
    if adaptersentry is not None:
        scored.append(
            peer.adaptersentry(adaptersentry, samples, store.parent / "adaptersentry", progress=progress)
        )
    return Matrix(
        profile=profile,
        bad=sum(sample.poisoned for sample in samples),
        good=sum(not sample.poisoned for sample in samples),
        recipes=len({sample.recipe for sample in samples}),
        bases=tuple(sorted({sample.base_name for sample in samples})),
        cells=tuple(cells(samples, scored)),
        recoveries=tuple(recovery(examined)),
        failures=tuple(f"{e.sample.key} ({e.error})" for e in examined if e.report is None),
    )
