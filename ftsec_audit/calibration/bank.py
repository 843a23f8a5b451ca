"""Against whom is a subject compared? Lookup of a comparable benign population in calibration packs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from ftsec_audit.calibration.learned import LearnedScore
from ftsec_audit.calibration.pack import Entry, Pack
from ftsec_audit.calibration.recipe import Recipe, Stratum
from ftsec_audit.contracts import Subject
from ftsec_audit.errors import UsageError

if TYPE_CHECKING:
    from ftsec_audit.calibration.conformal import Matrix

SHIPPED = Path(__file__).parent / "packs"
"""The folder of the packs that come with the program."""
SHIPPED_SCORE = Path(__file__).parent / "scores" / "lab.onnx"
"""The learned score that comes with the program."""


@dataclass(frozen=True, kw_only=True)
class Bank:
    """The benign artifacts of one stratum, as a matrix over the columns they share with the subject."""

    id: str
    """The packs it was drawn from, `name@version`."""
    stratum: Stratum
    columns: tuple[str, ...]
    rows: tuple[tuple[float, ...], ...]
    groups: tuple[str, ...]
    """The repository of each row."""

    @property
    def n(self) -> int:
        return len(self.rows)

    @property
    def n_groups(self) -> int:
        return len(set(self.groups))

    @property
    def label(self) -> str:
        return f"{self.stratum.label} ({self.n_groups} repositories)"

    def matrix(self) -> Matrix:
        """(n, p), float64."""
        import numpy as np

        return np.asarray(self.rows, dtype=np.float64).reshape(self.n, len(self.columns))


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """The benign banks in force. Immutable; `excluding` gives a copy that forgets repositories."""

    packs: tuple[Pack, ...]
    excluded: frozenset[str] = frozenset()
    """Repositories (lower case) whose artifacts are not used."""
    learned: LearnedScore | None = None
    """The score that was fitted to labelled samples."""

    @classmethod
    def load(cls, paths: Iterable[Path] | None = None, *, excluding: Iterable[str] = ()) -> Calibration:
        """The given packs and the given score (`.onnx`); of either, what is shipped where none is given.

        Raises `UsageError`.
        """
        given = list(paths or ())
        packs, scores = ([p for p in given if (p.suffix == ".onnx") is wanted] for wanted in (False, True))
        if len(scores) > 1:
            raise UsageError("one learned score at a time", where=", ".join(map(str, scores)))
        return cls(
            packs=tuple(Pack.load(path) for path in packs) if packs else _shipped(),
            learned=LearnedScore.load(scores[0]) if scores else _shipped_score(),
        ).excluding(excluding)

    @classmethod
    def empty(cls) -> Calibration:
        return cls(packs=())

    @property
    def id(self) -> str:
        """Of the benign banks; the learned score has an id of its own."""
        return " + ".join(pack.id for pack in self.packs) or "none"

    @property
    def n(self) -> int:
        """How many benign artifacts there are in all, exclusions applied."""
        return len(self._entries())

    def excluding(self, repositories: Iterable[str]) -> Calibration:
        """A calibration without the artifacts of these repositories (compared without case)."""
        return replace(self, excluded=self.excluded | {name.lower() for name in repositories})

    def population(
        self,
        feature_set: str,
        recipe: Recipe,
        features: Mapping[str, float],
        *,
        subject: Subject | None = None,
        enough: int = 20,
        coverage: float = 0.9,
    ) -> Bank | None:
        """The narrowest stratum of at least `enough` repositories, else the widest there is; None if empty.

        Columns are those the subject shares with at least `coverage` of the stratum; members that lack
        one of them are left out. The subject's own repository, and that of any copy of it, never takes
        part: it is recognised by name, by file digest, and by equal features.
        """
        others = [
            entry
            for entry in self.others(
                subject, same=lambda entry: _same(entry.features.get(feature_set, {}), features)
            )
            if feature_set in entry.features
        ]
        widest: Bank | None = None
        for stratum in recipe.strata():
            members = [entry for entry in others if stratum.holds(entry.recipe)]
            bank = self._bank(stratum, members, feature_set, features, coverage)
            if bank is not None and (widest is None or bank.n_groups >= widest.n_groups):
                widest = bank
            if widest is not None and widest.n_groups >= enough:
                return widest
        return widest

    def others(self, subject: Subject | None, *, same: Callable[[Entry], bool]) -> list[Entry]:
        """The artifacts that a subject may be compared with: none of its own repository or of a copy's.

        They are recognised by name, by file digest, and by `same`, which compares what was measured.
        """
        entries = self._entries()
        own = _own_repositories(entries, subject, same)
        return [entry for entry in entries if entry.provenance.repository.lower() not in own]

    def _entries(self) -> list[Entry]:
        every = (entry for pack in self.packs for entry in pack.entries)
        return [entry for entry in every if entry.provenance.repository.lower() not in self.excluded]

    def _bank(
        self,
        stratum: Stratum,
        members: Sequence[Entry],
        feature_set: str,
        features: Mapping[str, float],
        coverage: float,
    ) -> Bank | None:
        tables = [entry.features[feature_set] for entry in members]
        needed = coverage * len(tables)
        columns = tuple(
            key for key in sorted(features) if sum(key in table for table in tables) >= max(needed, 1)
        )
        kept = [
            (entry.provenance.repository, tuple(table[key] for key in columns))
            for entry, table in zip(members, tables, strict=True)
            if all(key in table for key in columns)
        ]
        if not columns or not kept:
            return None
        groups, rows = zip(*kept, strict=True)
        return Bank(id=self.id, stratum=stratum, columns=columns, rows=rows, groups=groups)


@cache
def _shipped() -> tuple[Pack, ...]:
    return tuple(Pack.load(path) for path in sorted(SHIPPED.glob("*.json*")))


@cache
def _shipped_score() -> LearnedScore:
    return LearnedScore.load(SHIPPED_SCORE)


def _own_repositories(
    entries: Sequence[Entry], subject: Subject | None, same: Callable[[Entry], bool]
) -> set[str]:
    """Repositories of the bank that the subject itself belongs to or is a copy from, lower case."""
    references, digests = "", set()
    if subject is not None:
        references = f"{subject.artifact.reference} {subject.artifact.resolved}".lower()
        digests = {file.digest.removeprefix("sha256:") for file in subject.artifact.weight_files} - {""}
    own = set()
    for entry in entries:
        repository = entry.provenance.repository.lower()
        named = re.search(rf"(?<![\w.-]){re.escape(repository)}(?![\w.-])", references) is not None
        if named or entry.provenance.sha256 in digests or same(entry):
            own.add(repository)
    return own


def _same(stored: Mapping[str, float], features: Mapping[str, float]) -> bool:
    """Whether two feature vectors agree in every shared column to within the rounding of a pack."""
    shared = stored.keys() & features.keys()
    return bool(shared) and all(
        abs(stored[k] - features[k]) <= 1e-4 * max(1.0, abs(stored[k])) for k in shared
    )
