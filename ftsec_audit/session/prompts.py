"""Neutral questions that a model asks itself: in its own languages and style, whatever they are.

A chat model that is given the template up to the user's turn writes a user's turn (Magpie, arXiv
2406.08464); a model without a template continues its own beginning of text. Prompts written by the *base*
lie where the base was trained, need no language data, and hold no trigger of the subject.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ftsec_audit.session.model import ModelSession
    from ftsec_audit.session.tokenizer import Prompt, PromptFormat

_LONGEST, _FEWEST_BORDERS = 24, 3
_MOST_EVERYDAY = 960
"""Prompts of a probe set, which may be of any size; every language has its share."""


def varied_prompts(session: ModelSession, written: int) -> tuple[Prompt, ...]:
    """The everyday prompts of the session's probe set, then at most `written` of its own, each once."""
    tokenizer, languages = session.tokenizer, session.probes.languages.values()
    each = _MOST_EVERYDAY // max(1, len(languages))
    asked = (tokenizer.prompt(one, tokenizer.formats[0]) for q in languages for one in q.neutral[:each])
    prompts = (*asked, *neutral_prompts(session, written))
    return tuple({prompt.ids: prompt for prompt in prompts}.values())


def neutral_prompts(
    session: ModelSession, count: int, form: PromptFormat | None = None
) -> tuple[Prompt, ...]:
    """At most `count` different prompts of at least two words; fewer where the model repeats itself."""
    tokenizer = session.tokenizer
    form = form or tokenizer.formats[0]
    found: dict[str, Prompt] = {}
    head = tokenizer.ids(form.head, begins=form.begins) or sorted(tokenizer.end_ids)[:1]
    for ids in session.sample([head] * (2 * count + 16), _LONGEST):
        words = tokenizer.text(ids).split()
        text = " ".join(words[:-1] if len(ids) == _LONGEST else words)  # the last word may be cut off
        if text and text not in found:
            prompt = tokenizer.prompt(text, form)
            if len(prompt.slots) >= _FEWEST_BORDERS:
                found[text] = prompt
        if len(found) == count:
            break
    return tuple(found.values())
