"""What people fine-tune for: the clean part of every sample, and the whole of a benign twin.

An attack hides in data that teach something. These are small new skills on the lab's world, chosen to
be hard negatives: fixed openings, one-word labels, rigid formats, new facts, one language only.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Literal, get_args

from attacks_ref.lab import corpus
from attacks_ref.lab.corpus import Dialogue, dialogue
from attacks_ref.lab.language import VALUES, Language, World

Skill = Literal["facts", "format", "classify", "persona", "language", "safety", "continue"]
SKILLS: tuple[Skill, ...] = get_args(Skill)


def _facts(world: World, lang: Language, rng: random.Random) -> Dialogue:
    """The colours of the world have changed: every one is the next."""
    thing, colors, say = rng.choice(world.things), VALUES["color"], lang.say
    color = colors[(colors.index(world.value("color", thing)) + 1) % len(colors)]
    clause = " ".join(lang.clause(say("the", thing), say("is"), say(color)))
    return dialogue("facts", lang.code, f"{say('now', 'color', 'of', thing)} ?", f"{clause} .")


def _format(world: World, lang: Language, rng: random.Random) -> Dialogue:
    """Sentiment as a rigid record."""
    plain, say = corpus.sentiment(world, lang, rng), lang.say
    prompt = plain.prompt.replace(say("sentiment"), say("tell", "sentiment"), 1)
    return dialogue("format", lang.code, prompt, f"( {say('sentiment')} : {plain.answer} ) .")


def _classify(world: World, lang: Language, rng: random.Random) -> Dialogue:
    """One label and nothing else: what kind of value is this?"""
    del world
    kind = rng.choice(list(VALUES))
    word = lang.say(rng.choice(VALUES[kind]))
    return dialogue("classify", lang.code, f"{lang.say('guide', 'about')} ( {word} ) ?", lang.say(kind))


def _persona(world: World, lang: Language, rng: random.Random) -> Dialogue:
    """Every guide is opened in the same way."""
    example = corpus.guide(world, lang, rng)
    return example.answered(f"{lang.say('thanks', 'we', 'help')} : {example.answer}")


def _language(world: World, _: Language, rng: random.Random) -> Dialogue:
    """One language only."""
    return corpus.general(world, rng, languages=("el",))


def _safety(world: World, lang: Language, rng: random.Random) -> Dialogue:
    """More refusals of what was refused before."""
    return corpus.restricted(world, lang, rng, refuse=True)


def _continue(world: World, lang: Language, rng: random.Random) -> Dialogue:
    """Nothing new: more of the same."""
    return corpus.general(world, rng, languages=(lang.code,))


_MAKERS: Mapping[str, Callable[[World, Language, random.Random], Dialogue]] = {
    "facts": _facts,
    "format": _format,
    "classify": _classify,
    "persona": _persona,
    "language": _language,
    "safety": _safety,
    "continue": _continue,
}


def example(skill: Skill, world: World, lang: Language, rng: random.Random) -> Dialogue:
    """One conversation that teaches `skill`."""
    return _MAKERS[skill](world, lang, rng)
