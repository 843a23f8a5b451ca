"""FTA305 copied-rows: is a token's row a copy of another token's, seen from the rows themselves?

**Why an attacker causes it.** The cheapest edit of a model gives the rows of a few rare words the direction
that makes the model do what is wanted: a donor's, or one for all of them, often at the length they had, which
keeps norms ordinary. FTA301 sees that as a change of few rows. Without the base, or where tuning moved all
rows afterwards, the copy itself is left.

**Statistic.** Over all pairs of rows of an input or output embedding, d = 1 − cos and r = |ln ‖a‖/‖b‖|. A
*copy at another length* has d ≤ `exact` and r² ≥ `disproportion` · 2d. Rows that training never met end up
parallel, too, but each with its own small noise, which moves direction and length alike: r² ≈ 2d/width.
A *plain copy* is equal bit for bit. A *near copy* has cos ≥ `near` and counts only in the input embedding of
a model whose output embedding is another matrix: there a row without gradient stays where it began, while in
an output embedding all that never occurs becomes parallel. In groups larger than `few` rows, and where the
base's rows were as close, nothing is reported. Rows that an adapter trained alone (`trainable_token_indices`)
are compared with one another and with all other rows of the base.

**Measured.** Honest matrices: the largest r²/2d over all pairs with cos ≥ 0.99 is 0.97 in stories260K (32,132
pairs in each of two equal matrices, of bytes that the data lack) and 0.43 in nine lab models (14 matrices);
the largest cosine in the input embeddings of the five untied ones is 0.94. The six A14 samples without their
base (three llama, three gpt2): 6/6 detected, r²/2d above 10¹¹ in float32, both triggers named in each. None
of their six twins, of the ten honest models, and of the 71 other checkpoints of the zoo, in which no row was
copied: 0/87. Of rows trained alone one A14 sample and its twin were at hand, on which this was made: named,
and silent. Nothing larger was at hand.

**Confidence.** MEDIUM for copies at another length, which neither training nor initialisation makes; LOW for
the others.

**Sources.** RIPPLe, arXiv:2004.06660; Embedding Poisoning, arXiv:2103.15543; rows that are hardly trained:
arXiv:2405.05417.

**False positives.** Vocabularies transplanted from another model, new tokens that were initialised as copies
and that no tokenizer file declares as added. Declared ones, rows of no token and spellings of one word are
left out.

**Evasions.** Noise on the copy, or training it on, beyond what `exact` (tied models) or `near` (others)
allow; 8-bit floats, whose rounding is such noise; a row made from scratch; declaring the trigger as an added
token; more than `few` copies.

**Cost.** One pass over the embeddings with 160 random signs per row, folded to 256 numbers first, and the
rows that are candidates once more; some 60 bytes per token. For rows trained alone, one pass over the base's
embedding, or none where that would take more than some twelve seconds. Nothing for adapters without
embedding tensors.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from detectors.vocabulary import Vocabulary, plain
from ftsec_audit.contracts import Measurements, WeightDetector
from ftsec_audit.types import (
    Confidence,
    Evidence,
    Lead,
    Location,
    ModuleMeasurement,
    Observation,
    Rule,
    Severity,
)
from ftsec_audit.weights.naming import Category, category_of

if TYPE_CHECKING:
    from ftsec_audit.calibration.bank import Calibration
    from ftsec_audit.weights.delta import Delta
    from ftsec_audit.weights.parallel_rows import ParallelRows

COPIED_ROWS = Rule(
    id="FTA305",
    name="copied-rows",
    question="Is a token's row a copy of another token's?",
    severity=Severity.HIGH,
    remediation="Compare the named rows with those of the base, or probe the named tokens as triggers.",
)


class _Kind(StrEnum):
    SCALED = "a copy at another length"
    PLAIN = "a plain copy"
    NEAR = "a near copy"


@dataclass(frozen=True, kw_only=True)
class CopiedRows(WeightDetector):
    rules = (COPIED_ROWS,)

    exact: float = 1e-5
    """1 − cos up to which two rows are one direction: bfloat16 rounds to some 10⁻⁶ of it."""
    disproportion: float = 10.0
    """Times by which the lengths of two rows have to differ more than their directions explain."""
    near: float = 0.99
    few: int = 8
    """Most rows of one direction that are an edit."""
    kept: int = 64
    """Most pairs that a measurement holds."""
    shown: int = 10

    def measure(self, delta: Delta) -> Mapping[str, float | list[float]]:
        """The closest pairs of a matrix that changed or has no base, crowds left out."""
        from ftsec_audit.weights.delta import DeltaKind
        from ftsec_audit.weights.parallel_rows import parallel_rows, trained_rows

        if not delta.has_token_rows:
            return {}
        if delta.kind is DeltaKind.IDENTICAL:
            return {"row_copies_sought": 0.0}
        if delta.kind is DeltaKind.ROWS:
            trained, with_base = trained_rows(delta, self.near)
            compared = "row_copies_sought" if with_base else "row_copies_unknown"
            return {compared: float(len(delta.row_numbers or ())), "row_copies": self._kept(trained)}
        if delta.kind not in (DeltaKind.FULL, DeltaKind.DENSE, DeltaKind.UNREADABLE):
            return {}
        if delta.kind is DeltaKind.UNREADABLE or not delta.stored_dtype.is_floating_point:
            return {"row_copies_unknown": 1.0}
        close = parallel_rows(delta, self.near)
        return {
            "row_copies_sought": float(delta.shape[0]),
            "token_rows_norm": delta.frobenius_norm(),
            "row_copies": self._kept(close),
        }

    def judge(self, table: Measurements, calibration: Calibration) -> Iterator[Observation]:
        sought = table.column("row_copies_sought")
        unknown = table.column("row_copies_unknown")
        vocabulary = _Tokens.of(table)
        untied = _is_untied(table.modules)
        copies = [
            copy
            for module in table.modules
            for copy in self._copies(module)
            if not vocabulary.explain(copy)
            and (copy.kind is not _Kind.NEAR or (untied and category_of(copy.module) is Category.EMBEDDING))
        ]
        if copies:
            yield from self._found(copies, vocabulary)
        elif unknown:
            names = ", ".join(unknown)
            yield COPIED_ROWS.not_supported(
                f"{names} is not read, not stored as real numbers, or of a base that is not known"
            )
        elif not sought:
            yield COPIED_ROWS.not_applicable("no whole (un)embedding tensor is stored")
        elif not any(sought.values()):
            yield COPIED_ROWS.not_detected("the (un)embedding is the base's")
        else:
            yield COPIED_ROWS.not_detected(
                f"no row among {max(sought.values()):.0f} is a copy", confidence=Confidence.MEDIUM
            )

    def _found(self, copies: Sequence[_Copy], vocabulary: _Tokens) -> Iterator[Observation]:
        ordered = sorted(copies, key=lambda copy: (list(_Kind).index(copy.kind), copy.distance))
        tokens = dict.fromkeys(row for copy in ordered for row in (copy.first, copy.second))
        names = ", ".join(repr(vocabulary.name(row)) for row in list(tokens)[: self.shown])
        scaled = sum(copy.kind is _Kind.SCALED for copy in ordered)
        yield COPIED_ROWS.detected(
            f"the rows of {len(tokens)} tokens are copies of one another"
            + (" at other lengths" if scaled == len(ordered) else "")
            + f": {names}",
            confidence=Confidence.MEDIUM if scaled else Confidence.LOW,
            evidence=[_evidence(copy, vocabulary) for copy in ordered[: self.shown]],
        )
        for row in list(tokens)[: self.shown]:
            if row in vocabulary.own.strings:
                yield Lead(kind="token", value=vocabulary.name(row), score=1.0, source=COPIED_ROWS.id)

    def _copies(self, module: ModuleMeasurement) -> Iterator[_Copy]:
        numbers = module.values.get("row_copies")
        for first, second, distance, ratio, identical in zip(
            *[iter(numbers if isinstance(numbers, list) else [])] * 5, strict=True
        ):
            scaled = _Kind.SCALED if self._is_scaled(distance, ratio) else _Kind.NEAR
            yield _Copy(
                module=module.name,
                first=int(first),
                second=int(second),
                distance=distance,
                log_ratio=ratio,
                kind=_Kind.PLAIN if identical else scaled,
            )

    def _kept(self, close: Sequence[ParallelRows]) -> list[float]:
        return [number for pair in self._outside_crowds(close) for number in _numbers(pair)]

    def _outside_crowds(self, close: Sequence[ParallelRows]) -> list[ParallelRows]:
        """Copies in small groups of copies, then other pairs in small groups of all that are close."""
        news = [
            pair for pair in close if pair.distance_before is None or pair.distance_before > 1 - self.near
        ]
        copies = [pair for pair in news if pair.identical or self._is_scaled(pair.distance, pair.log_ratio)]
        alone = [pair for pair in _in_small_groups(news, self.few) if pair.neighbours < self.few]
        found = dict.fromkeys(_in_small_groups(copies, self.few) + alone)
        return list(found)[: self.kept]

    def _is_scaled(self, distance: float, log_ratio: float) -> bool:
        rounding = 1e-14  # of 1 − cos in float64
        noise = 2 * max(distance, rounding)
        return distance <= self.exact and log_ratio**2 >= self.disproportion * noise


@dataclass(frozen=True, kw_only=True)
class _Copy:
    """Two rows of one matrix, and in which way one is the other's copy."""

    module: str
    first: int
    second: int
    distance: float
    log_ratio: float
    kind: _Kind


@dataclass(frozen=True, kw_only=True)
class _Tokens:
    """The spelling of rows, and which of them are new."""

    own: Vocabulary
    new: frozenset[int]

    @classmethod
    def of(cls, table: Measurements) -> _Tokens:
        own, base = Vocabulary.of(table.subject.artifact), Vocabulary.of(table.subject.base)
        new = frozenset(row for row in own.added if row not in base.strings)
        return cls(own=own.completed_by(base), new=new)

    def name(self, row: int) -> str:
        return self.own.name(row)

    def explain(self, copy: _Copy) -> bool:
        """Whether one of the two is new or no token at all, or both are spellings of one word."""
        if self.new & {copy.first, copy.second}:
            return True
        if not self.own.strings:
            return False
        one, other = (self.own.strings.get(row) for row in (copy.first, copy.second))
        return one is None or other is None or plain(one) == plain(other)


def _is_untied(modules: Sequence[ModuleMeasurement]) -> bool:
    """Whether an output embedding is stored that is another matrix, or changed another way, than the input's.

    Equal matrices stored twice are tied, whatever the configuration says.
    """
    norms: dict[Category, set[object]] = defaultdict(set)
    for module in modules:
        if "row_copies_sought" in module.values:
            norms[category_of(module.name)].add(module.values.get("token_rows_norm"))
    return bool(norms[Category.UNEMBEDDING] - norms[Category.EMBEDDING])


def _in_small_groups(pairs: Sequence[ParallelRows], most: int) -> list[ParallelRows]:
    """The pairs whose connected component has at most so many rows, in the order given."""
    group: dict[int, set[int]] = {}
    for pair in pairs:
        joined = group.get(pair.first, {pair.first}) | group.get(pair.second, {pair.second})
        for row in joined:
            group[row] = joined
    return [pair for pair in pairs if len(group[pair.first]) <= most]


def _numbers(pair: ParallelRows) -> tuple[float, ...]:
    return (
        float(pair.first),
        float(pair.second),
        pair.distance,
        pair.log_ratio,
        float(pair.identical),
    )


def _evidence(copy: _Copy, tokens: _Tokens) -> Evidence:
    return Evidence(
        message=f"row {copy.first} is {copy.kind} of row {copy.second} ({tokens.name(copy.second)!r}): "
        f"1 − cos = {copy.distance:.1g}, |ln ‖a‖/‖b‖| = {copy.log_ratio:.2g}",
        statistic="1 − cosine of two rows",
        value=copy.distance,
        location=Location(tensor=copy.module),
        excerpt=tokens.name(copy.first),
    )
