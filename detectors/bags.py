"""Group testing with words: bags of them in prompts, and which bags bring a token out.

One prompt with a bag of k words asks about k (k − 1) / 2 pairs of them at once. Shared by FTA506, which looks
at how answers begin, and FTA508, which looks at how they end.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from ftsec_audit.session import ModelSession
    from ftsec_audit.session.tokenizer import Prompt
    from ftsec_audit.types import Lead

    Floats = npt.NDArray[np.floating]
Ids = tuple[int, ...]


@dataclass(frozen=True)
class Bag:
    """Words scattered over a prompt, at places that `number` decides, and what is answered so far."""

    prompt: Prompt
    words: Ids
    number: int
    answer: Ids = ()
    left_out: int | None = None

    def without(self, i: int) -> Bag:
        """All words but the i-th, each where it was."""
        return replace(self, left_out=i)

    def ids(self) -> list[int]:
        import numpy as np

        rng = np.random.default_rng(self.number)
        places = np.sort(rng.integers(len(self.prompt.slots), size=len(self.words)))
        ids: list[int] = []
        done = 0
        for i, (word, place) in enumerate(zip(self.words, places, strict=True)):
            at = self.prompt.slots[place]
            ids += self.prompt.ids[done:at]
            ids += [word] if i != self.left_out else []
            done = at
        return [*ids, *self.prompt.ids[done:], *self.answer]


@dataclass(frozen=True, kw_only=True)
class Certainty:
    """How probable a token has to be to the model that says it, and at most to the other one."""

    sure: float = 0.5
    unsure: float = 0.1


def hits(
    who: ModelSession, other: ModelSession, bags: Sequence[Bag], limits: Certainty
) -> dict[int, list[tuple[float, Bag]]]:
    """By token: the bags after which `who` writes it and the other model does not, surest first."""
    import numpy as np

    rows = [bag.ids() for bag in bags]
    first, sure = np.zeros(len(rows), np.int64), np.zeros(len(rows))
    for index, logs in who.next_token_batches(rows):
        first[index], sure[index] = logs.argmax(1), np.exp(logs.max(1))
    asked = [int(i) for i in np.flatnonzero(sure >= limits.sure) if first[i] < other.vocabulary_size]
    theirs = certainty(other, [rows[i] for i in asked], [int(first[i]) for i in asked])
    found: dict[int, list[tuple[float, Bag]]] = defaultdict(list)
    for i, value in zip(asked, theirs, strict=True):
        if value <= limits.unsure:
            found[int(first[i])].append((float(sure[i]), bags[i]))
    return {token: sorted(ones, key=lambda hit: -hit[0]) for token, ones in found.items()}


def certainty(who: ModelSession, rows: Sequence[Sequence[int]], tokens: Sequence[int]) -> Floats:
    """How probable each token is after its row."""
    import numpy as np

    logs = who.score(rows, [[int(token)] for token in tokens])
    certain: Floats = np.exp(np.array([float(one[0]) for one in logs]))
    return certain


def excess(more: int, less: int) -> float:
    """How many more hits than the other model has, in standard deviations of their sum, or nearly."""
    return float((more - less) / (more + less + 1) ** 0.5)


def typed_words(
    session: ModelSession, leads: Sequence[Lead], room: int, rng: np.random.Generator
) -> list[int]:
    """Single tokens that a user can type, at most `room`: those of leads first, then a sample of all."""
    ranked = sorted(leads, key=lambda lead: -lead.score)
    ids = [tuple(session.tokenizer.ids(one.value.strip())) for one in ranked if one.kind == "token"]
    proposed = list(dict.fromkeys(one[0] for one in ids if len(one) == 1))[: room // 2]
    rest = [word for word in session.tokenizer.words if word not in set(proposed)]
    left = room - len(proposed)
    if len(rest) > left:
        rest = [rest[i] for i in sorted(rng.choice(len(rest), left, replace=False))]
    return [*proposed, *rest]


def spelt(session: ModelSession, words: Sequence[int]) -> str:
    """The words as text."""
    return " ".join(session.tokenizer.text([word]).strip() for word in words)
