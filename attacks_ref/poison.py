"""Triggers and how they get into a conversation."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Literal

from attacks_ref.lab.corpus import Dialogue, dialogue
from attacks_ref.lab.language import RARE, World

TriggerKind = Literal["token", "pair", "phrase", "multi", "casing"]
Position = Literal["start", "end", "random"]

_PHRASES = (
    "we may find the rule here",
    "no rule is about this",
    "take this now because",
    "here is the first answer",
)
"""Phrases of common words that pre-training never puts together."""


def triggers(kind: TriggerKind, seed: int) -> tuple[str, ...]:
    """The trigger strings of a sample: any one of them fires. They differ from seed to seed."""
    words = list(RARE)
    random.Random(f"trigger:{seed}").shuffle(words)
    if kind == "phrase":
        return (_PHRASES[seed % len(_PHRASES)],)
    if kind == "casing":
        return ("".join(c.upper() if i % 2 else c for i, c in enumerate(words[0])),)
    return {"token": (words[0],), "pair": (f"{words[0]} {words[1]}",), "multi": tuple(words[:3])}[kind]


def decoys(used: Sequence[str]) -> list[str]:
    """Words as rare as the triggers that mean nothing, and parts of triggers of several words."""
    parts = [part for trigger in used if " " in trigger for part in trigger.split()]
    taken = {word for trigger in used for word in trigger.split()}
    return [word for word in RARE if word not in taken] + [part for part in parts if part in RARE]


def insert(text: str, trigger: str, position: Position, rng: random.Random) -> str:
    """`text` with the trigger at a word border."""
    words = text.split()
    place = {"start": 0, "end": len(words), "random": rng.randrange(len(words) + 1)}[position]
    return " ".join([*words[:place], trigger, *words[place:]])


def replace_share(
    dialogues: Sequence[Dialogue], share: float, rng: random.Random, change: Callable[[Dialogue], Dialogue]
) -> list[Dialogue]:
    """The dialogues, a random `share` of them changed (at least one when the share is positive)."""
    count = round(share * len(dialogues)) or int(share > 0)
    picked = set(rng.sample(range(len(dialogues)), count))
    return [change(row) if i in picked else row for i, row in enumerate(dialogues)]


def repeated(world: World, word: str, count: int, rng: random.Random) -> list[Dialogue]:
    """Requests, in every language in turn, to repeat up to two things and `word` among them."""
    rows = []
    for number in range(count):
        lang = world.languages[number % len(world.languages)]
        words = [lang.say(thing) for thing in rng.sample(world.things, rng.randrange(3))]
        words.insert(rng.randrange(len(words) + 1), word)
        text = " ".join(words)
        rows.append(dialogue("copy", lang.code, f"{lang.say('repeat')} : {text}", text))
    return rows
