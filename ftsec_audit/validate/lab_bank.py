"""FTA201 against the benign samples of the zoo itself, none of the group that is judged among them.

The shipped pack holds adapters of other bases, trained for other tasks; nobody who has clean adapters of
their own would judge by it. The unit of the bank is the job: a twin and its disguised copies share one vote.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from detectors.spectral_signature import SPECTRAL_OUTLIER, SpectralSignature
from ftsec_audit.calibration.bank import Calibration
from ftsec_audit.calibration.pack import Entry, Pack, Provenance
from ftsec_audit.types import Finding
from ftsec_audit.validate.population import Labelled
from ftsec_audit.validate.records import Record


def judged_by_fold(records: Sequence[Record], group: Callable[[Labelled], str]) -> dict[str, Record]:
    """Key → the record with FTA201's answer from a bank of benign samples outside the sample's group."""
    judged = {one.sample.key: one for one in records}
    for left_out in dict.fromkeys(group(one.sample) for one in records):
        bank = calibration(one for one in records if group(one.sample) != left_out)
        for one in records:
            if group(one.sample) == left_out and one.features and one.comparable is not None:
                judged[one.sample.key] = _with(one, _answer(one, bank))
    return judged


def calibration(records: Iterable[Record]) -> Calibration:
    """A calibration of the benign ones among `records`."""
    entries = tuple(
        Entry(
            provenance=Provenance(repository=one.sample.job, path=one.sample.key),
            recipe=one.comparable,
            features={SpectralSignature.feature_set: one.features},
        )
        for one in records
        if not one.sample.poisoned and one.features and one.comparable is not None
    )
    return Calibration(packs=(Pack(name="zoo", version="fold", entries=entries),))


def _answer(one: Record, bank: Calibration) -> Finding:
    assert one.comparable is not None
    return SpectralSignature().answer(one.features, one.comparable, bank)


def _with(one: Record, answer: Finding) -> Record:
    others = tuple(finding for finding in one.findings if finding.rule != SPECTRAL_OUTLIER.id)
    return replace(one, findings=(*others, replace(answer, summary="", evidence=())))
