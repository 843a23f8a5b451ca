"""Both sides of a change of rank one in tokens: what it writes, and which tokens set it off.

ΔW = σ·u·vᵀ adds σ·(v·x)·u to what the matrix puts out for the input x. Of a matrix that writes to the
residual stream, u is read through the unembedding (logit lens); v is compared with what the matrix receives
from a token among others, where attention brings the average of them. A singular vector has no sign of its
own: both are looked at, and their tokens take turns, the sign that stands out more going first.

Measured on 98 rank-one edits of one key each (value by gradient, key whitened) that took effect, on four lab
architectures and a small story model: the written token is the first of one sign in 96, the trigger among
the ten first in 60. Tried for the trigger and worse: single-token texts (24 of 98), products instead of
cosines (55), the sign of the written side alone for both (49). For the written side, passing the direction
through the layers above is worse than the lens (85 of 98), and so is the larger sign alone (85).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from detectors.vocabulary import Vocabulary
from ftsec_audit.errors import Unsupported
from ftsec_audit.formats.token_text import is_byte_level, language, plain, script
from ftsec_audit.types import Lead, ModuleMeasurement

if TYPE_CHECKING:
    from torch import Tensor

    from ftsec_audit.contracts import Subject
    from ftsec_audit.weights.delta import Delta

KEPT = 10
"""Tokens kept of either side."""


def token_values(delta: Delta) -> dict[str, float | list[float]]:
    """Ids and z-scores of the top tokens of either side of ΔW's first direction, as far as there are any.

    A score is negative for tokens of the sign under which the largest entry of the vector is negative.
    """
    values: dict[str, float | list[float]] = {}
    for side, scores in _sides(delta):
        ids, z = _taking_turns(scores)
        values |= {f"{side}_token_ids": ids, f"{side}_token_scores": z}
    return values


def _sides(delta: Delta) -> Iterator[tuple[str, Tensor]]:
    """`trigger` and `written` with z-scores (|V|, 1), where they can be had."""
    from ftsec_audit.weights.naming import writes_residual
    from ftsec_audit.weights.token_pass import TokenPass
    from ftsec_audit.weights.token_space import standardised

    if delta.tokens is None:
        return
    u, v = delta.top_singular_vectors()
    with suppress(Unsupported):
        yield "trigger", standardised(TokenPass(delta.tokens, own=0.0).cosines(delta.name, v[:, None]))
    if writes_residual(delta.name):
        with suppress(Unsupported):
            yield "written", delta.tokens.written(u[:, None])


def _taking_turns(scores: Tensor) -> tuple[list[float], list[float]]:
    """Ids and scores of the tokens that stand out most, from either end in turn."""
    from ftsec_audit.weights.token_space import top_tokens

    (high,), (low,) = top_tokens(scores, KEPT), top_tokens(-scores, KEPT)
    ups = list(zip(high.ids, high.scores, strict=True))
    downs = [(id, -score) for id, score in zip(low.ids, low.scores, strict=True)]
    if ups and abs(downs[0][1]) > abs(ups[0][1]):
        ups, downs = downs, ups
    turns = [token for pair in zip(ups, downs, strict=True) for token in pair]
    kept = dict(turns[:KEPT])
    return [float(id) for id in kept], list(kept.values())


@dataclass(frozen=True)
class NamedToken:
    """One token of the base, as a person would type it."""

    id: int
    text: str
    score: float

    def __str__(self) -> str:
        return f"{self.text!r} (z {self.score:.1f})"

    def lead(self, kind: str, tensor: str, source: str) -> Lead:
        details = {
            "id": self.id,
            "script": script(self.text),
            "language": language(self.text),
            "tensor": tensor,
        }
        return Lead(kind=kind, value=self.text, score=abs(self.score), source=source, details=details)


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """The top tokens of both sides of one change, best first."""

    tensor: str
    written: tuple[NamedToken, ...]
    triggers: tuple[NamedToken, ...]

    def summary(self, shown: int = 5) -> str:
        """`; writes ' Rome' (z 9.1), …; set off by …`, or nothing."""
        sides = (("writes", self.written), ("set off by", self.triggers))
        return "".join(f"; {verb} " + ", ".join(map(str, side[:shown])) for verb, side in sides if side)

    def leads(self, source: str) -> Iterator[Lead]:
        """Every named token as something to try: what sets off as `token`, what is written as `target`."""
        yield from (token.lead("token", self.tensor, source) for token in self.triggers)
        yield from (token.lead("target", self.tensor, source) for token in self.written)


@dataclass(frozen=True, kw_only=True)
class Spelling:
    """How the tokens of a subject's base are spelled."""

    vocabulary: Vocabulary
    byte_level: bool

    @classmethod
    def of(cls, subject: Subject) -> Spelling:
        vocabulary = Vocabulary.of(subject.base).completed_by(Vocabulary.of(subject.artifact))
        return cls(vocabulary=vocabulary, byte_level=is_byte_level(vocabulary.strings.values()))

    def decoded(self, module: ModuleMeasurement) -> Decoded:
        """Both sides of a measured change; tokens without a spelling are named by `#` and their number."""
        return Decoded(
            tensor=module.name,
            written=tuple(self._tokens(module, "written")),
            triggers=tuple(self._tokens(module, "trigger")),
        )

    def _tokens(self, module: ModuleMeasurement, side: str) -> Iterator[NamedToken]:
        ids, scores = module.values.get(f"{side}_token_ids"), module.values.get(f"{side}_token_scores")
        if isinstance(ids, list) and isinstance(scores, list):
            for id, score in zip(map(int, ids), scores, strict=True):
                text = plain(self.vocabulary.name(id), byte_level=self.byte_level)
                yield NamedToken(id, text, score)
