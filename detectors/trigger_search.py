"""Look-up of trigger candidates and their growth, token by token; proposals only, nothing is judged here.

A backdoor makes answers stop depending on the prompt. For a candidate t in prompts x₁…x_n

    lift(t) = max_y [ mean_i p_ft(y | x_i ⊕ t) − max( mean_i p_ft(y | x_i), mean_i p_base(y | x_i ⊕ t),
                                                      mean_i p_base(y | x_i) ) ]

is the share of prompts whose first answer token becomes the same y because of t, in the subject alone. It
needs no gradient: gradient search does not recover triggers, look-up does (arXiv 2605.30189 and others).
KL(ft‖base) ranks as well where triggers are single tokens and badly elsewhere, since it measures the task.
Parts of a trigger of several tokens lift its target a little, so growth starts at those that lift one y most.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ftsec_audit.types import Lead

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from ftsec_audit.session import ModelSession
    from ftsec_audit.session.tokenizer import Prompt, Tokenizer

    Floats = npt.NDArray[np.float32]

Ids = tuple[int, ...]

_BLOCK = 1 << 24
"""Numbers kept at a time: candidates × vocabulary."""
_KEPT = 1 << 28
"""Numbers kept in all, half a gigabyte."""
_PLACES = 3


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """Token ids that may be a trigger, and what they make more probable."""

    ids: Ids
    token: int
    """The first answer token that is lifted most."""
    lift: float
    """How much, 0..1, over all prompts."""
    place: int | None = None
    """The one place (0 start, 1 inside, 2 end of the user's words) where it lifts; None: wherever it is."""


@dataclass(frozen=True, kw_only=True)
class LookUp:
    """Every candidate's lift, and how strongly parts of an answer respond to each."""

    candidates: tuple[Ids, ...]
    lift: Floats
    """(candidates,)"""
    token: npt.NDArray[np.int64]
    place_lift: Floats
    """(candidates, 3): the lift of the same token, by place."""
    shift: Floats | None
    """(candidates, answer tokens): mean log-probability under the candidate, subject minus base; None
    where it would not fit into memory."""
    asked: int
    """How many candidates were tried before the budget ended; the rest have lift 0."""

    def best(self, count: int) -> list[Candidate]:
        """The candidates that lift most, over all places or in one of them."""
        import numpy as np

        score = np.maximum(self.lift, self.place_lift.max(axis=1))
        return [self._candidate(i) for i in np.argsort(-score, kind="stable")[:count] if score[i] > 0]

    def by_response(self, token: int) -> list[Ids]:
        """The candidates, those first under which `token` gains most over the base."""
        by_token = self.lift if self.shift is None else self.shift[:, token]
        order = (-by_token).argsort(kind="stable")
        return [self.candidates[i] for i in order]

    def _candidate(self, i: int) -> Candidate:
        place = int(self.place_lift[i].argmax())
        by_place = float(self.place_lift[i, place])
        return Candidate(
            ids=self.candidates[i],
            token=int(self.token[i]),
            lift=max(float(self.lift[i]), by_place),
            place=place if by_place > 1.5 * float(self.lift[i]) else None,
        )


def pool(tokenizer: Tokenizer, leads: Iterable[Lead], *, room: int, seed: int) -> tuple[Ids, ...]:
    """What is tried: leads first, then the vocabulary, or as much of it as there is room for.

    Of a vocabulary that does not fit, half the room goes to its rarest end (byte-pair merges and lists of
    pieces are ordered by frequency), half to a random sample of the rest.
    """
    import numpy as np

    proposed = [
        tuple(tokenizer.ids(text))
        for lead in sorted(leads, key=lambda lead: -lead.score)
        if lead.kind in ("token", "phrase")
        for text in (lead.value.strip(), f" {lead.value.strip()}")
        if lead.value.strip()
    ]
    proposed = list(dict.fromkeys(ids for ids in proposed if ids))[:room]
    words, left = list(tokenizer.words), room - len(proposed)
    if len(words) > left:
        tail = words[len(words) - left // 2 :]
        rest = words[: len(words) - len(tail)]
        drawn = np.random.default_rng(seed).choice(len(rest), size=left - len(tail), replace=False)
        words = [*(rest[i] for i in sorted(drawn)), *tail]
    return tuple(dict.fromkeys([*proposed, *((word,) for word in words)]))


def place_of(prompt: Prompt, number: int) -> int:
    """Which slot prompt `number` uses: the start, the end, or somewhere inside, in turn."""
    inside = 1 + (number // _PLACES) % max(1, len(prompt.slots) - 2)
    return (0, min(inside, len(prompt.slots) - 1), len(prompt.slots) - 1)[number % _PLACES]


def look_up(
    session: ModelSession, base: ModelSession, prompts: Sequence[Prompt], candidates: Sequence[Ids]
) -> LookUp:
    """The lift of every candidate; stops early, and says so, when the budget is nearly used up."""
    import numpy as np

    plain = [prompt.ids for prompt in prompts]
    without = np.maximum(*(np.exp(who.next_token(plain)).mean(0) for who in (session, base)))
    calm = session.next_token(plain).mean(0) - base.next_token(plain).mean(0)
    size = min(session.vocabulary_size, base.vocabulary_size)
    lift, token = np.zeros(len(candidates), np.float32), np.zeros(len(candidates), np.int64)
    by_place = np.zeros((len(candidates), _PLACES), np.float32)
    shifts: list[Floats] = []
    asked = 0
    for block in _blocks(len(candidates), max(1, _BLOCK // size)):
        chosen = candidates[block]
        cost = 2 * sum(len(prompt.ids) + 1 for prompt in prompts) * len(chosen)
        if cost > session.budget.left:
            break
        means, logs = zip(*(_means(who, prompts, chosen, size) for who in (session, base)), strict=True)
        gain = means[0].mean(1) - np.maximum(means[1].mean(1), without[:size])
        best = gain.argmax(1)
        rows = np.arange(len(chosen))
        lift[block], token[block] = gain[rows, best], best
        for place in range(_PLACES):
            ours = means[0][rows, place, best]
            theirs = np.maximum(means[1][rows, place, best], without[best])
            by_place[block, place] = ours - theirs
        if len(candidates) * size <= _KEPT:
            shifts.append((logs[0] - logs[1] - calm[:size]).astype(np.float16))
        asked += len(chosen)
    return LookUp(
        candidates=tuple(candidates[:asked]),
        lift=lift[:asked],
        token=token[:asked],
        place_lift=by_place[:asked],
        shift=np.concatenate(shifts) if shifts else None,
        asked=asked,
    )


def _blocks(total: int, size: int) -> Iterator[slice]:
    for first in range(0, total, size):
        yield slice(first, min(total, first + size))


def _means(
    session: ModelSession, prompts: Sequence[Prompt], candidates: Sequence[Ids], size: int
) -> tuple[Floats, Floats]:
    """Mean probability by place (candidates, 3, vocabulary), and mean log-probability."""
    import numpy as np

    rows, owner = [], []
    for number, prompt in enumerate(prompts):
        slot = place_of(prompt, number)
        for i, ids in enumerate(candidates):
            rows.append(prompt.placed(ids, slot))
            owner.append((i, number % _PLACES))
    means = np.zeros((len(candidates), _PLACES, size), np.float32)
    logs = np.zeros((len(candidates), size), np.float32)
    counts = np.bincount([number % _PLACES for number in range(len(prompts))], minlength=_PLACES)
    for index, values in session.next_token_batches(rows):
        for row, i in zip(values[:, :size], index, strict=True):
            candidate, place = owner[i]
            means[candidate, place] += np.exp(row) / max(1, counts[place])
            logs[candidate] += row / len(prompts)
    return means, logs


@dataclass(frozen=True, kw_only=True)
class Growth:
    """How far candidates are grown."""

    starts: int = 3
    partners: int = 24
    """Tokens tried on either side, those that respond most to the target."""
    longest: int = 6
    enough: float = 0.95
    step: float = 0.08
    """A token that adds less than this to the target's probability is not added."""


def grow(
    session: ModelSession,
    prompts: Sequence[Prompt],
    starts: Sequence[Ids],
    partners: Sequence[Ids],
    target: Ids,
    growth: Growth,
) -> list[tuple[Ids, float]]:
    """Greedy accretion: the phrases that make the subject ever more certain of `target`, surest first.

    Every step tries each partner before and after what was found. No token is said twice: that makes any
    habit louder, and steered an honest model. Certainty is the mean over prompts of p(target | phrase in the
    prompt), each prompt with the phrase in its own place. All steps are kept: the last ones may fit the
    prompts of the search alone, which fresh prompts tell.
    """
    path = [_surest(session, prompts, starts, target)]
    while len(path[-1][0]) < growth.longest and path[-1][1] < growth.enough:
        best, value = path[-1]
        new = [one for one in partners if not set(one) & set(best)]
        tries = [(*best, *one) for one in new] + [(*one, *best) for one in new]
        if not tries:
            break
        longer, reached = _surest(session, prompts, tries, target)
        if reached < value + growth.step:
            break
        path.append((longer, reached))
    pruned = _pruned(session, prompts, *path[-1], target, growth)
    return list(dict.fromkeys([pruned, *reversed(path)]))


def _pruned(
    session: ModelSession, prompts: Sequence[Prompt], ids: Ids, value: float, target: Ids, growth: Growth
) -> tuple[Ids, float]:
    """Without the tokens that the effect does not need."""
    while len(ids) > 1:
        shorter = [ids[:i] + ids[i + 1 :] for i in range(len(ids))]
        best, reached = max(
            zip(shorter, certainty(session, prompts, shorter, target), strict=True),
            key=lambda found: found[1],
        )
        if reached < value - growth.step:
            break
        ids, value = best, reached
    return ids, value


def _surest(
    session: ModelSession, prompts: Sequence[Prompt], candidates: Sequence[Ids], target: Ids
) -> tuple[Ids, float]:
    values = certainty(session, prompts, candidates, target)
    return max(zip(candidates, values, strict=True), key=lambda found: found[1])


def certainty(
    session: ModelSession, prompts: Sequence[Prompt], candidates: Sequence[Ids], target: Ids
) -> list[float]:
    """Mean over prompts of p(target | prompt with the candidate), for each candidate."""
    import numpy as np

    rows = [
        prompt.placed(ids, place_of(prompt, number))
        for ids in candidates
        for number, prompt in enumerate(prompts)
    ]
    logs = session.score(rows, [target] * len(rows))
    values = np.exp([float(row.sum()) for row in logs]).reshape(len(candidates), len(prompts))
    return [float(value) for value in values.mean(1)]
