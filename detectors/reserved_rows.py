"""FTA306 reserved-rows: does a token that is kept in reserve look trained, unlike its siblings?

**Why an attacker causes it.** `<|reserved_special_token_42|>`, `[unused7]` and their like are single tokens
that no text contains: a trigger that nobody writes by accident, that no probe of words tries, and whose row
may be trained at will without touching anything else.

**Statistic.** Tokens of one series differ in a number only. Nothing trains them, so their rows are what the
initialisation drew plus what weight decay and the softmax do to all of them alike: a population of its own,
in every model another, which needs no calibration. For each row, ln ‖row − centre‖ and the product with the
direction from the centre to the mean of the ordinary rows, each as a robust z among its siblings (median,
MAD); the centre is their coordinate-wise median. A row with |z| ≥ `departure` + `few_siblings`/n in either
looks trained, n the length of the series: the fewer siblings, the less certain their MAD. Of simulated series
of normal numbers 9 in 40,000 have such a row at n = 16, and none in 20,000 at n = 64. A conformal p cannot
say this: one of n siblings is the most extreme always, at p = 1/n.

**Confidence.** MEDIUM where the base's row kept to its siblings; LOW without a base, as honest models have
used reserved tokens, too. A lead for the trigger search either way.

**Measured.** On lab-llama-nano and lab-gpt2-nano with 64 reserved tokens, five seeds each, four of them run
when the rule was as it is (`benchmarks/reserved_tokens.py`): the trigger, which works in 90 to 100 %, is
named in 10 of 10, with a base and without, at z 7.4 to 28.6, and nothing beside it; nothing in 10 bases and
10 twins, whose largest z is 4.1. Two tokens that honest tool calls stand between lie at 5.7 to 14.3: reported
in 6 of 10, and in none of 8 whose chat template names them. A first run of seed 0 asked for 10 at every n:
both triggers were named then, too, and no tools. It was lowered for long series because 10.2 is a narrow
escape, to what the simulation allows.

all-MiniLM-L6-v2 (BERT's vocabulary), presumed honest, is the one real model at hand with such
tokens. Without a base one of its 994 `[unusedN]` is reported, `[unused80]` at 33.7, where ordinary words lie
at some 40; the other 993 stay below 3.5. That row was trained indeed, by whatever BERT's data held: a false
alarm, if it is read as an accusation.

**False positives.** A fine-tune that makes honest use of a reserved token which neither a chat template nor a
role in a configuration names; those that one does are listed and not reported. One row of a real base that
was trained by whatever its data contained.

**Evasions.** A trigger row left as it was, with all of the change in other matrices: rows of an adapter on
attention alone never move. Naming the token in the chat template, where it can be read. Training more than
half of a series. Tokens of no series, and series whose names do not say that they are kept in reserve; T5's
`<extra_id_0>` and so on are left out as well: its pre-training uses them.

**Cost.** One reading of the tokenizer, and of the rows in question; nothing for other matrices.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from detectors.vocabulary import Vocabulary
from ftsec_audit.contracts import Measurements, WeightDetector
from ftsec_audit.errors import FtsecError
from ftsec_audit.formats import bounded_json, chat_template, tokenizer_json
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

if TYPE_CHECKING:
    from torch import Tensor

    from ftsec_audit.artifact import Artifact
    from ftsec_audit.calibration.bank import Calibration
    from ftsec_audit.contracts import Subject
    from ftsec_audit.weights.delta import Delta

RESERVED_ROWS = Rule(
    id="FTA306",
    name="reserved-rows",
    question="Does a token that is kept in reserve look trained, unlike its siblings?",
    severity=Severity.MEDIUM,
    remediation="Ask the publisher what the named tokens are used for, or probe them as triggers.",
)
_NUMBER = re.compile(r"\d+")
_RESERVE = re.compile(
    r"[^\w\s▁Ġ].*(reserved|unused|place.?holder|dummy|extra|spare|special|control).*[^\w\s]", re.IGNORECASE
)
_IN_USE = re.compile(r"<extra_id_#>")
"""T5 is pre-trained with these."""
_AT_ONCE = 64
"""Rows that are read together."""
_SAMPLE = 1024
"""Ordinary rows of which the mean is taken, and siblings of which the centre is."""
_NO_DEPARTURE = 1e-3
"""Share of the centre's length below which rows that are all but equal do not differ."""
_LEAST_SPREAD = 1e-3
"""Least deviation of ln ‖row − centre‖ and its like: rows that are equal bit for bit have none."""


@dataclass(frozen=True, kw_only=True)
class ReservedRows(WeightDetector):
    rules = (RESERVED_ROWS,)

    fewest: int = 16
    """Siblings from which on one of them can stand out."""
    departure: float = 6.0
    """|robust z| of a row that looks trained, in a long series."""
    few_siblings: float = 64.0
    """What is added to it for a series of one."""
    kept: int = 64
    """Most rows that a measurement holds of a series."""
    shown: int = 10

    def measure(self, delta: Delta) -> Mapping[str, float | list[float]]:
        """The rows of every series that depart from their siblings, and did not in the base."""
        from ftsec_audit.weights.delta import DeltaKind

        if not delta.has_token_rows or delta.subject is None:
            return {}
        if delta.kind is DeltaKind.IDENTICAL:
            return {"reserved_rows": 0.0}
        if delta.kind is DeltaKind.UNREADABLE:
            return {"reserved_rows_unknown": 1.0}
        if delta.kind not in (DeltaKind.FULL, DeltaKind.DENSE):
            return {}
        groups = [rows for rows in series(_vocabulary(delta.subject), delta.stored_shape[0]) if rows]
        if not groups:
            return {"reserved_rows_fewest": 0.0}
        if not delta.stored_dtype.is_floating_point:
            return {"reserved_rows_unknown": 1.0}
        asked = [rows for rows in groups if len(rows) >= self.fewest]
        if not asked:
            return {"reserved_rows_fewest": float(max(map(len, groups)))}
        ordinary = _ordinary(delta, {row for rows in groups for row in rows})
        found = [self._departing(delta, rows, ordinary) for rows in asked]
        return {
            "reserved_rows": float(sum(map(len, asked))),
            "reserved_largest": max(largest for largest, _ in found),
            "reserved_departures": [number for _, numbers in found for number in numbers],
        }

    def _departing(self, delta: Delta, rows: Sequence[int], ordinary: _Sides) -> tuple[float, list[float]]:
        """The largest |z|, and the rows that depart, farthest first: row, z now, and in the base or 0."""
        least = self.departure + self.few_siblings / len(rows)
        after, before = (_departures(delta, rows, ordinary, side) for side in (0, 1))
        assert after is not None
        numbers: list[float] = []
        for place in after.abs().argsort(descending=True, stable=True)[: self.kept].tolist():
            z, z_before = float(after[place]), 0.0 if before is None else float(before[place])
            if abs(z) >= least > abs(z_before):
                numbers += (float(rows[place]), z, z_before)
        return float(after.abs().max()), numbers

    def judge(self, table: Measurements, calibration: Calibration) -> Iterator[Observation]:
        sought, fewest = table.column("reserved_rows"), table.column("reserved_rows_fewest")
        unknown = table.column("reserved_rows_unknown")
        vocabulary = _vocabulary(table.subject)
        news = [row for module in table.modules for row in _rows(module, vocabulary)]
        named = _used_openly(table.subject, news) if news else frozenset()
        hidden = [row for row in news if row.id not in named]
        explained = sorted({row.token for row in news} - {row.token for row in hidden})
        if hidden:
            yield from self._found(hidden, explained, sought, has_base=table.subject.base is not None)
        elif unknown:
            names = ", ".join(unknown)
            yield RESERVED_ROWS.not_supported(f"{names} is not read, or not stored as real numbers")
        elif not sought and fewest:
            most = max(fewest.values())
            yield RESERVED_ROWS.not_applicable(
                f"the longest series of reserved tokens has {most:.0f}, {self.fewest} are needed"
                if most
                else "the vocabulary has no series of reserved tokens"
            )
        elif not sought:
            yield RESERVED_ROWS.not_applicable("no whole (un)embedding tensor is stored")
        elif not any(sought.values()):
            yield RESERVED_ROWS.not_detected("the (un)embedding is the base's")
        else:
            yield RESERVED_ROWS.not_detected(
                f"{max(sought.values()):.0f} reserved tokens look alike (largest robust z "
                f"{max(table.column('reserved_largest').values()):.1f}){_openly(explained, self.shown)}",
                confidence=Confidence.MEDIUM,
            )

    def _found(
        self,
        rows: Sequence[_Row],
        explained: Sequence[str],
        sought: Mapping[str, float],
        *,
        has_base: bool,
    ) -> Iterator[Observation]:
        ordered = sorted(rows, key=lambda row: -abs(row.now))
        tokens = list(dict.fromkeys(row.token for row in ordered))
        names = ", ".join(map(repr, tokens[: self.shown]))
        yield RESERVED_ROWS.detected(
            f"{len(tokens)} of {max(sought.values()):.0f} reserved tokens look trained: {names}"
            + _openly(explained, self.shown),
            confidence=Confidence.MEDIUM if has_base else Confidence.LOW,
            evidence=[row.evidence(has_base=has_base) for row in ordered[: self.shown]],
        )
        for row in {row.token: row for row in reversed(ordered)}.values():
            details = {"row": row.id, "tensor": row.module}
            yield Lead(
                kind="token", value=row.token, score=abs(row.now), source=RESERVED_ROWS.id, details=details
            )


@dataclass(frozen=True, kw_only=True)
class _Row:
    """One row that departs from its siblings."""

    id: int
    token: str
    module: str
    now: float
    before: float

    def evidence(self, *, has_base: bool) -> Evidence:
        base = f", {self.before:.1f} in the base" if has_base else ""
        return Evidence(
            message=f"row {self.id} lies apart from its siblings: robust z {self.now:.1f}{base}",
            statistic="robust z among siblings",
            value=self.now,
            location=Location(tensor=self.module),
            excerpt=self.token,
        )


def series(vocabulary: Vocabulary, rows: int) -> list[list[int]]:
    """Ids of the tokens that differ in a number only and whose name says that they are kept in reserve."""
    found: dict[str, list[int]] = defaultdict(list)
    for row, token in vocabulary.strings.items():
        if 0 <= row < rows and _RESERVE.fullmatch(token) and _NUMBER.search(token):
            found[_NUMBER.sub("#", token)].append(row)
    return [sorted(ids) for name, ids in sorted(found.items()) if not _IN_USE.fullmatch(name)]


_Sides = tuple["Tensor", "Tensor | None"]
"""Of the subject, and of the base where there is one."""


def _vocabulary(subject: Subject) -> Vocabulary:
    return Vocabulary.of(subject.artifact).completed_by(Vocabulary.of(subject.base))


def _ordinary(delta: Delta, reserved: set[int]) -> _Sides:
    """Mean rows (width,) of a sample of all the others."""
    others = [row for row in range(delta.stored_shape[0]) if row not in reserved]
    step = math.ceil(len(others) / _SAMPLE) or 1
    sums: list[Tensor | None] = [None, None]
    picked = others[::step] or sorted(reserved)[:1]
    for chunk in _chunks(picked):
        for side, rows in enumerate(delta.stored_rows(chunk)):
            if rows is not None:
                own, total = rows.double().sum(dim=0), sums[side]
                sums[side] = own if total is None else total + own
    assert sums[0] is not None
    return sums[0] / len(picked), None if sums[1] is None else sums[1] / len(picked)


def _departures(delta: Delta, rows: Sequence[int], ordinary: _Sides, side: int) -> Tensor | None:
    """The robust z (n,) of each row among all, of the statistic that departs most; None without a base."""
    import torch

    mean = ordinary[side]
    if mean is None:
        return None
    step = math.ceil(len(rows) / _SAMPLE)
    sample = [delta.stored_rows(chunk)[side] for chunk in _chunks(rows[::step])]
    centre = torch.cat([part for part in sample if part is not None]).nanmedian(dim=0).values.double()
    towards = mean - centre
    towards = towards / towards.norm().clamp(min=1e-300)
    least = max(_NO_DEPARTURE * float(centre.norm()), 1e-30)
    distances, products = [], []
    for chunk in _chunks(rows):
        part = delta.stored_rows(chunk)[side]
        assert part is not None
        offsets = part.double() - centre
        distances.append(offsets.norm(dim=1).clamp(min=least).log())
        products.append(offsets @ towards)
    far, along = torch.cat(distances), torch.cat(products)
    along = along / far.median().exp()  # in units of the siblings' own distance
    scores = torch.stack([_robust_z(far), _robust_z(along)])
    return scores.gather(0, scores.abs().argmax(dim=0, keepdim=True))[0]


def _robust_z(values: Tensor) -> Tensor:
    deviations = (values - values.nanmedian()).nan_to_num(0.0, posinf=0.0, neginf=0.0)
    spread = 1.4826 * float(deviations.abs().median())
    return deviations / max(spread, _LEAST_SPREAD)


def _chunks(rows: Sequence[int]) -> Iterator[Sequence[int]]:
    return (rows[start : start + _AT_ONCE] for start in range(0, len(rows), _AT_ONCE))


def _rows(module: ModuleMeasurement, vocabulary: Vocabulary) -> Iterator[_Row]:
    numbers = module.values.get("reserved_departures")
    for row, now, before in zip(*[iter(numbers if isinstance(numbers, list) else [])] * 3, strict=True):
        yield _Row(id=int(row), token=vocabulary.name(int(row)), module=module.name, now=now, before=before)


def _used_openly(subject: Subject, rows: Sequence[_Row]) -> frozenset[int]:
    """Those of the rows whose token a chat template writes or a configuration gives a role."""
    templates: list[str] = []
    ids: set[object] = set()
    roles: set[str] = set()
    for artifact in (subject.artifact, subject.base):
        if artifact is not None:
            templates += (copy.text for copy in chat_template.collect(artifact).copies)
            ids.update(_ids_of_roles(artifact))
            roles.update(_texts_of_roles(artifact))
    return frozenset(
        row.id
        for row in rows
        if row.id in ids or row.token in roles or any(row.token in text for text in templates)
    )


def _ids_of_roles(artifact: Artifact) -> Iterator[object]:
    """Values of `eos_token_id`, `user_token_id`, … in the model's configurations."""
    for name in ("config.json", "generation_config.json"):
        content = _json(artifact, name)
        for key, value in content.items():
            if key.endswith("_token_id"):
                yield from value if isinstance(value, list) else (value,)


def _texts_of_roles(artifact: Artifact) -> Iterator[str]:
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if file := artifact.file(name):
            with suppress(FtsecError):
                yield from tokenizer_json.special_tokens(file).values()


def _json(artifact: Artifact, name: str) -> Mapping[str, object]:
    """The file's object; empty where there is none or it cannot be read, which is another rule's business."""
    file = artifact.file(name)
    try:
        content = bounded_json.read(file).value if file else {}
    except FtsecError:
        content = {}
    return content if isinstance(content, dict) else {}


def _openly(tokens: Sequence[str], shown: int) -> str:
    """A clause on trained tokens that are no secret."""
    if not tokens:
        return ""
    return f"; trained, and named by a template or configuration: {', '.join(map(repr, tokens[:shown]))}"
