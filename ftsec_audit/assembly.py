"""From what the detectors said to the report: cards, limits, and what nobody looked at."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ftsec_audit.artifact import Artifact, ArtifactKind
from ftsec_audit.calibration.spectra import bands
from ftsec_audit.contracts import Measurements, Subject
from ftsec_audit.errors import SourceError
from ftsec_audit.fusion import suspicion
from ftsec_audit.module_measurements import ModuleMeasurements
from ftsec_audit.sources.model_card import statements
from ftsec_audit.types import ArtifactCard, Decision, NotLookedAt, Profile, Report, Rule, Verdict
from ftsec_audit.version import VERSION

if TYPE_CHECKING:
    from ftsec_audit.calibration.bank import Calibration
    from ftsec_audit.runner import Audit

_MAX_CARD = 1 << 20
_NOT_JUDGED = Decision(verdict=Verdict.INCONCLUSIVE, policy="", reasons=("not judged yet",))


def assemble(
    subject: Subject,
    audit: Audit,
    *,
    profile: Profile,
    rules: Iterable[Rule],
    calibration: Calibration,
    command: str,
    with_digest: bool,
    exact: bool = False,
) -> Report:
    """The report on one audit, before a policy has judged it: inconclusive until one has."""
    card = subject.artifact.card(with_digest=with_digest, exact=exact)
    card = replace(card, declared=_declared(subject.artifact))
    return Report(
        tool_version=VERSION,
        artifact=card,
        base=_base_card(subject.base, with_digest=with_digest) if subject.base else None,
        profile=profile,
        decision=_NOT_JUDGED,
        findings=audit.findings,
        rules=tuple(sorted(rules, key=lambda rule: rule.id)),
        leads=audit.leads,
        not_looked_at=(*audit.not_looked_at, *_not_looked_at(subject, card)),
        suspicion=suspicion(audit.findings),
        measurements=ModuleMeasurements(audit.measurements),
        benign_spectra=bands(calibration, Measurements(modules=audit.measurements, subject=subject)),
        limits=tuple(_limits(subject, calibration)),
        command=command,
    )


def _declared(artifact: Artifact) -> dict[str, list[str]]:
    """What the model card states; an unreadable card states nothing, and is reported by the rules."""
    file = artifact.file("README.md")
    if file is None:
        return {}
    try:
        return statements(file.read(_MAX_CARD).decode(errors="replace"))
    except SourceError:
        return {}


def _base_card(base: Artifact, *, with_digest: bool) -> ArtifactCard:
    """A remote base is pinned by its commit; hashing it would fetch files that nobody looked at."""
    return base.card(with_digest=with_digest and Path(base.resolved).is_absolute())


def _not_looked_at(subject: Subject, card: ArtifactCard) -> Iterator[NotLookedAt]:
    """What no detector was shown."""
    artifact = subject.artifact
    for path in artifact.unexamined:
        # Those that a loader could take instead of the measured ones are rule FTA108's, which compares them.
        reason = "further weights; those of the model above were measured, these only checked as a file"
        yield NotLookedAt(what=path, reason=reason)
    yield from _compositions(artifact)
    is_folder = artifact.local_dir is not None or len(artifact.files) > 1
    if artifact.kind is ArtifactKind.FILES and is_folder:
        # A folder in which no model was found has not passed as a model; a single file is only itself.
        reason = f"no adapter and no checkpoint was recognised in its {len(card.files)} files"
        yield NotLookedAt(what="model", reason=reason, incomplete=True)


def _compositions(artifact: Artifact) -> Iterator[NotLookedAt]:
    """In which company, and in which form, the model may be used without having been looked at in it."""
    if artifact.composition:
        reason = "only their weights were put together; scan each adapter by itself as well"
        yield NotLookedAt(what=f"other files of {', '.join(artifact.composition)}", reason=reason)
    elif artifact.kind is ArtifactKind.ADAPTER:
        reason = "looked at alone on its base, at its own scale; name what is loaded with it by --with"
        yield NotLookedAt(what="stacks and merges with other adapters, other scales", reason=reason)


def _limits(subject: Subject, calibration: Calibration) -> Iterator[str]:
    yield from subject.artifact.problems
    if subject.base is None:
        yield f"no comparison with a base model: {subject.base_reason}"
    if calibration.n == 0:
        yield "no calibration: statistics of the weights could not be compared with benign artifacts"
