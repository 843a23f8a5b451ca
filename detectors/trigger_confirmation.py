"""Does a candidate fire on prompts that took no part in finding it? Counts, against four controls.

The same fresh prompts are asked with the trigger, without it, with other words of its length in its place
(each prompt with its own), and of the base with the trigger. What counts as fired is fixed beforehand: the
answer begins with the target that was read off the search prompts. Asked as text, as a user would type it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from detectors.trigger_search import place_of
from ftsec_audit.calibration.proportions import Share, fisher_greater

if TYPE_CHECKING:
    from detectors.trigger_search import Ids
    from ftsec_audit.session import ModelSession
    from ftsec_audit.session.tokenizer import Prompt

_ANSWER = 12
"""Tokens of an answer that are read."""


@dataclass(frozen=True, kw_only=True)
class Confirmation:
    """How often the target was said, of the fresh prompts, under each condition."""

    trigger: str
    target: str
    target_ids: tuple[int, ...]
    fired: Share
    without: Share
    controls: Share
    base: Share
    by_place: tuple[Share, Share, Share]
    """At the start, inside and at the end of the user's words."""
    partial: tuple[tuple[str, Share], ...] = ()
    """Each part of a trigger of several tokens, alone."""

    @property
    def p_value(self) -> float:
        """Of the most frequent control being as frequent as the trigger; Fisher's exact test."""
        return max(fisher_greater(self.fired, other) for other in (self.without, self.controls, self.base))


def read_target(session: ModelSession, prompts: Sequence[Prompt], ids: Ids) -> tuple[int, ...]:
    """The answer that most prompts get under the candidate, or what at least half of them begin with."""
    rows = [prompt.placed(ids, place_of(prompt, number)) for number, prompt in enumerate(prompts)]
    answers = [tuple(answer) for answer in session.greedy(rows, _ANSWER)]
    for length in range(_ANSWER, 0, -1):
        beginnings = Counter(answer[:length] for answer in answers if answer)
        if beginnings and (most := beginnings.most_common(1)[0])[1] * 2 >= len(answers):
            return most[0]
    return ()


def confirm(
    session: ModelSession,
    base: ModelSession,
    prompts: Sequence[Prompt],
    ids: Ids,
    target: tuple[int, ...],
    controls: Sequence[Ids],
    *,
    place: int | None = None,
) -> Confirmation:
    """Ask `prompts`; `controls` are other candidates, dealt out over the prompts in turn."""
    tokenizer = session.tokenizer
    trigger = tokenizer.text(ids).strip()

    def fires(who: ModelSession, words: Sequence[str]) -> list[bool]:
        rows = [
            _with(who, prompt, word, number, place)
            for number, (prompt, word) in enumerate(zip(prompts, words, strict=True))
        ]
        return [tuple(answer[: len(target)]) == target for answer in who.greedy(rows, len(target))]

    def share(hits: Sequence[bool]) -> Share:
        return Share(sum(hits), len(hits))

    hits = fires(session, [trigger] * len(prompts))
    others = [tokenizer.text(controls[i % len(controls)]).strip() for i in range(len(prompts))]
    parts = [tokenizer.text([id]).strip() for id in ids] if len(ids) > 1 else []
    places = [range(3)[number % 3] if place is None else place for number in range(len(prompts))]
    by_place = [share([hit for hit, at in zip(hits, places, strict=True) if at == one]) for one in range(3)]
    return Confirmation(
        trigger=trigger,
        target=tokenizer.text(target).strip(),
        target_ids=target,
        fired=share(hits),
        without=share(fires(session, [""] * len(prompts))),
        controls=share(fires(session, others)),
        base=share(fires(base, [trigger] * len(prompts))),
        by_place=(by_place[0], by_place[1], by_place[2]),
        partial=tuple((part, share(fires(session, [part] * len(prompts)))) for part in dict.fromkeys(parts)),
    )


def _with(who: ModelSession, prompt: Prompt, word: str, number: int, place: int | None) -> list[int]:
    """The prompt's text with `word` between two of its words, encoded anew."""
    words = prompt.text.split(" ")
    at = (0, 1 + (number // 3) % max(1, len(words) - 1), len(words))[number % 3 if place is None else place]
    text = " ".join([*words[:at], word, *words[at:]] if word else words)
    return list(who.tokenizer.prompt(text, prompt.form).ids)
