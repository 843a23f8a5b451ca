"""Both sides of a change of rank one in tokens: what it writes, and which tokens set it off.

ΔW = σ·u·vᵀ adds σ·(v·x)·u to what the matrix puts out for the input x. Of a matrix that writes to the
residual stream, u is read through the unembedding (logit lens); v is compared with what the matrix receives
when a token is the whole text. The sign that a singular vector leaves open is the one under which the
triggers' side stands out most. Later layers are not gone through, and neither are texts of several tokens.
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
    """Ids and z-scores of the top tokens of either side of ΔW's first direction, as far as there are any."""
    from ftsec_audit.weights.naming import writes_residual
    from ftsec_audit.weights.token_space import top_tokens

    if delta.tokens is None:
        return {}
    u, v = delta.top_singular_vectors()
    sides: dict[str, Tensor] = {}
    set_off = _set_off(delta, v)
    if set_off is not None:
        sides["trigger"] = set_off
    if writes_residual(delta.name):
        with suppress(Unsupported):
            sides["written"] = delta.tokens.written(u[:, None])
    values: dict[str, float | list[float]] = {}
    sign = 1.0
    for number, (side, scores) in enumerate(sides.items()):
        if number == 0 and -float(scores.min()) > float(scores.max()):
            sign = -1.0
        (top,) = top_tokens(sign * scores, KEPT)
        values |= {f"{side}_token_ids": [float(id) for id in top.ids], f"{side}_token_scores": [*top.scores]}
    return values


def _set_off(delta: Delta, v: Tensor) -> Tensor | None:
    """z-scores (|V|, 1) of the tokens' inputs to the matrix along v; None where they cannot be had."""
    from ftsec_audit.weights.token_pass import TokenPass
    from ftsec_audit.weights.token_space import standardised

    assert delta.tokens is not None
    try:
        return standardised(TokenPass(delta.tokens).along(delta.name, v[:, None]))
    except Unsupported:
        return None


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
        return Lead(kind=kind, value=self.text, score=self.score, source=source, details=details)


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
