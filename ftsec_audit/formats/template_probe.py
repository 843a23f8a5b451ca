"""What a chat template *does*, observed by rendering conversations that differ in one thing.

The observations need no base: a template is compared with itself, with and without a suspected
trigger, in history and as a prompt. Only natural language counts as a difference, since honest
templates rearrange their own markup freely (reasoning blocks, tool calls, dates).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import lru_cache
from itertools import islice

from ftsec_audit.formats.template_ast import TemplateFacts
from ftsec_audit.formats.template_render import Job, Rendered, RenderLimits, render_all
from ftsec_audit.formats.template_taint import is_language

_SYSTEM = "Sysmark obeys."
_FIRST = "Quixotic lighthouse?"
_REPLY = "Marmalade replies."
_SECOND = "Zephyr umbrella?"
_TURNS = 12
_WORDS = 4000
_CONSTANTS = 48
_ROUNDS = 3
"""A condition behind a condition is heard only once the first one holds."""
_MARKUP = re.compile(r"<[^<>\n]{0,80}>|\[/?[A-Z_]{2,40}\]|\{[^{}\n]{0,80}\}")
# Some vendors open the answer themselves ("Here are my reasoning steps"); an attack opens it with consent.
_COMPLIANCE = re.compile(
    r"\b(?:sure|certainly|absolutely|of course|gladly|happy to|i will comply|here is (?:how|the|a)|yes|"
    r"okay|ok|no problem|claro|bien sûr|natürlich|конечно|当然|もちろん)\b",
    re.IGNORECASE,
)
_USERS = ("user", "human", "instruction", "question", "input")
_ASSISTANTS = ("assistant", "model", "bot", "ai", "response", "answer", "output")
_ROLES = frozenset(["system", *_USERS, *_ASSISTANTS])
_USER_WORDS = re.compile(r"user|human|inst|question|query|client", re.IGNORECASE)
_ASSISTANT_WORDS = re.compile(r"assistant|model|bot|\bai\b|response|gpt|answer", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Behaviour:
    """One thing a template was seen to do."""

    kind: str
    summary: str
    trigger: str = ""
    added: str = ""
    as_system: bool = False
    """A fixed text in the place of a system message, as a default or company-wide system prompt is."""


Message = dict[str, str]


def conversations() -> list[list[Message]]:
    """The grid on which two templates are compared."""
    system, first = {"role": "system", "content": _SYSTEM}, {"role": "user", "content": _FIRST}
    reply, second = {"role": "assistant", "content": _REPLY}, {"role": "user", "content": _SECOND}
    return [[first], [system, first], [first, reply, second], [system, first, reply, second]]


def _unprovoked(text: str, limits: RenderLimits | None) -> tuple[Rendered, ...]:
    """What a template writes for the grid and for a long conversation."""
    answers = _rendered_once(text, limits)
    if any(answer.limit for answer in answers):
        _rendered_once.cache_clear()  # a busy machine may have been the cause
    return answers


@lru_cache(maxsize=4)
def _rendered_once(text: str, limits: RenderLimits | None) -> tuple[Rendered, ...]:
    """Two rules ask for it, and starting the process that renders costs more than all else that they do."""
    long = [
        {"role": ("user", "assistant")[turn % 2], "content": f"{_FIRST} {turn}"}
        for turn in range(2 * _TURNS - 1)
    ]
    jobs = [Job(template=0, messages=messages) for messages in [*conversations(), long]]
    return tuple(render_all([text], jobs, limits))


def observe(text: str, facts: TemplateFacts, limits: RenderLimits | None = None) -> list[Behaviour]:
    """Everything suspicious that one template does on its own."""
    fixed = _unprovoked(text, limits)
    seen = [*_structure(fixed[:4]), *_grows(fixed[2], fixed[4])]
    tried: list[str] = []
    heard = _heard(fixed)
    for _ in range(_ROUNDS):
        triggers = [word for word in _triggers([*facts.constants, *heard]) if word not in tried]
        if not triggers:
            break
        tried += triggers
        reactions, heard = _plant_all(text, triggers, fixed, limits)
        seen += reactions
    return list({(item.kind, item.added): item for item in reversed(seen)}.values())[::-1]


def _plant_all(
    text: str, triggers: Sequence[str], fixed: Sequence[Rendered], limits: RenderLimits | None
) -> tuple[list[Behaviour], list[str]]:
    """How the template reacts to each trigger, and what it compared the words of the messages with."""
    plain = conversations()
    planted = [
        (trigger, placed, shape)
        for trigger in triggers
        for placed in _placements(trigger)
        for shape in (0, 2)
    ]
    jobs = [Job(template=0, messages=_plant(plain[shape], placed)) for _, placed, shape in planted]
    answers = render_all([text], jobs, limits)
    reactions = (
        _reacts(trigger, placed, fixed[shape], answer)
        for (trigger, placed, shape), answer in zip(planted, answers, strict=True)
    )
    return [reaction for reaction in reactions if reaction], _heard(answers)


def _heard(answers: Sequence[Rendered]) -> list[str]:
    """What a person could have written among all that the messages were compared with."""
    return list(dict.fromkeys(word for answer in answers for word in answer.heard if is_language(word)))


def compare(text: str, base: str, limits: RenderLimits | None = None) -> list[Behaviour]:
    """What a template writes, or leaves out, that its base's template does not."""
    grid = conversations()
    jobs = [Job(template=index, messages=messages) for messages in grid for index in (0, 1)]
    answers = render_all([text, base], jobs, limits)
    ours, theirs = [one.text for one in answers[::2]], [one.text for one in answers[1::2]]
    seen: list[Behaviour] = []
    fixed: dict[bool, set[str]] = {}
    for number, messages in enumerate(grid):
        after, before = ours[number], theirs[number]
        if after is None or before is None:
            continue
        for message in messages:
            if message["content"] in before and message["content"] not in after:
                summary = f"leaves out the {message['role']} message that the base's template keeps"
                seen.append(Behaviour(kind="drops a message", summary=summary))
        spans = [
            (start, end) for start, end in _added_spans(before, after) if not _names_roles(after[start:end])
        ]
        added = _language(after, spans)
        fixed.setdefault(messages[0]["role"] == "system", set()).add(added)
        if added:
            asked = theirs[number | 1]  # the same conversation with a system message
            seen.append(_addition(added, as_system=_stands_as_system(after, spans, asked)))
    if any(len(texts) > 1 for texts in fixed.values()):  # it depends on what was said, or on how much
        seen = [_addition(one.added, as_system=False) if one.added else one for one in seen]
    return list(dict.fromkeys(seen))


def _addition(added: str, *, as_system: bool) -> Behaviour:
    summary = (
        "writes a fixed text as a system message, which the base's template does not"
        if as_system
        else "adds text that the base's template does not write"
    )
    return Behaviour(kind="adds text", summary=summary, added=added, as_system=as_system)


def _names_roles(text: str) -> bool:
    """Whether a text only says whose turn it is, as the headers of another prompt format do."""
    return all(word.lower() in _ROLES for word in _words(text))


def _stands_as_system(after: str, spans: Iterable[tuple[int, int]], asked: str | None) -> bool:
    """Whether all added text stands where the base's template writes a system message (`asked`).

    That is behind as many turns as there, under no header of a user unless the base's stands under one,
    and repeats no message. Where the base writes no system message, its place is the beginning.
    """
    head = asked.partition(_SYSTEM)[0] if asked and _SYSTEM in asked else ""
    return all(
        _turns_in(after[:start]) == _turns_in(head)
        and not _turns_in(after[start:end])
        and (_is_user(head[-60:]) or not _is_user(after[:start][-60:]))
        for start, end in spans
    )


def _turns_in(text: str) -> int:
    """How many messages of the grid begin in a text, system messages aside."""
    return sum(text.count(message.split()[0]) for message in (_FIRST, _REPLY, _SECOND))


def same_output(text: str, other: str, limits: RenderLimits | None = None) -> bool:
    """Whether two templates write exactly the same for every conversation of the grid."""
    jobs = [Job(template=index, messages=messages) for index in (0, 1) for messages in conversations()]
    answers = render_all([text, other], jobs, limits)
    return answers[: len(jobs) // 2] == answers[len(jobs) // 2 :]


def exhaustion(text: str, limits: RenderLimits | None = None) -> str | None:
    """How a template exceeds the limits of rendering, or None when it ends in time."""
    reasons = sorted({answer.limit for answer in _unprovoked(text, limits) if answer.limit})
    return f"cannot be rendered within limits: {reasons[0]}" if reasons else None


def added_language(before: str, after: str) -> str:
    """The words of `after` that were inserted into `before`; markup, digits and short scraps are left out."""
    return _language(after, _added_spans(before, after))


def _language(text: str, spans: Iterable[tuple[int, int]]) -> str:
    return " … ".join(" ".join(_words(text[start:end])) for start, end in spans)


def _added_spans(before: str, after: str) -> list[tuple[int, int]]:
    """Where in `after` the words lie that were inserted into `before`."""
    old, places = _words(before), list(_word_places(after))
    new = [after[start:end] for start, end in places]
    return [
        (places[j1][0], places[j2 - 1][1])
        for tag, _, _, j1, j2 in SequenceMatcher(None, old, new, autojunk=False).get_opcodes()
        if tag in ("insert", "replace") and re.search(r"[^\W\d_]{3,}", " ".join(new[j1:j2]))
    ]


def _words(text: str) -> list[str]:
    return [text[start:end] for start, end in _word_places(text)]


def _word_places(text: str) -> Iterator[tuple[int, int]]:
    blank = _MARKUP.sub(lambda markup: " " * len(markup[0]), text)
    return (word.span() for word in islice(re.finditer(r"[\w'’-]+", blank), _WORDS))


def _triggers(constants: Sequence[str]) -> list[str]:
    """Strings to try: the template's own constants, forwards and backwards, and all of them at once."""
    usable = [text for text in constants if 1 < len(text.strip()) <= 120]
    language = [text for text in usable if is_language(text)]
    rest = [text for text in usable if text not in language]
    together = [" ".join(language[:40])] if len(language) > 1 else []
    backwards = [text[::-1] for text in language[:16]]
    return list(dict.fromkeys([*(language + rest)[:_CONSTANTS], *backwards, *together]))


def _placements(trigger: str) -> tuple[str, ...]:
    return (trigger, f"Quixotic {trigger} lighthouse?", f"{trigger} lighthouse?", f"Quixotic {trigger}")


def _plant(messages: Sequence[Message], content: str) -> list[Message]:
    return [*messages[:-1], {**messages[-1], "content": content}]


def _reacts(trigger: str, placed: str, plain: Rendered, answer: Rendered) -> Behaviour | None:
    """The difference a trigger in the last user message makes to everything around that message."""
    if plain.text is None:
        return None
    if answer.text is None:
        if not is_language(trigger) or answer.limit:
            return None
        return Behaviour(kind="reacts to words", summary="refuses a message for its words", trigger=trigger)
    content = _SECOND if _SECOND in plain.text else _FIRST
    before, found, after = plain.text.rpartition(content)
    expected = before + placed + after
    if not found or answer.text in (expected, before + placed.strip() + after):
        return None
    if added := added_language(expected, answer.text):
        summary = "writes additional text when a message holds certain words"
        return Behaviour(kind="reacts to words", summary=summary, trigger=trigger, added=added)
    if is_language(trigger) and placed.strip() not in answer.text:
        summary = "removes or rewrites a message that holds certain words"
        return Behaviour(kind="reacts to words", summary=summary, trigger=trigger)
    return None


def _structure(answers: Sequence[Rendered]) -> list[Behaviour]:
    """Swapped roles, a prefilled answer, a silently dropped system message."""
    seen: list[Behaviour] = []
    chat, with_system = answers[2].text, answers[1].text
    if with_system is not None and _FIRST in with_system and _SYSTEM not in with_system:
        seen.append(
            Behaviour(
                kind="drops the system message", summary="leaves out the system message without an error"
            )
        )
    if chat is None or not all(mark in chat for mark in (_FIRST, _REPLY, _SECOND)):
        return seen
    before_user, rest = chat.split(_FIRST, 1)
    before_reply, rest = rest.split(_REPLY, 1)
    prompt = rest.rsplit(_SECOND, 1)[-1]
    if _is_assistant(before_user[-60:]) and _is_user(before_reply[-60:]):
        seen.append(
            Behaviour(kind="swaps roles", summary="writes the user's turn as the assistant's and back")
        )
    if (added := added_language(before_reply, prompt)) and _COMPLIANCE.search(added):
        summary = "begins the assistant's answer with words of consent"
        seen.append(Behaviour(kind="prefills the answer", summary=summary, added=added))
    return seen


def _is_user(header: str) -> bool:
    return bool(_USER_WORDS.search(header)) and not _ASSISTANT_WORDS.search(header)


def _is_assistant(header: str) -> bool:
    return bool(_ASSISTANT_WORDS.search(header)) and not _USER_WORDS.search(header)


def _grows(short: Rendered, long: Rendered) -> list[Behaviour]:
    """Text that appears only once a conversation has become long."""
    if short.text is None or long.text is None:
        return []
    known = set(_words(short.text)) | set(_words(_FIRST))
    new = [word for word in _words(long.text) if word not in known and re.search(r"[^\W\d_]{3,}", word)]
    if not new:
        return []
    summary = "writes additional text once a conversation is long"
    return [Behaviour(kind="reacts to length", summary=summary, added=" ".join(new[:60]))]
