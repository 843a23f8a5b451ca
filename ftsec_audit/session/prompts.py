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
