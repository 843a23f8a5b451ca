"""Text to ids and back by `tokenizer.json` alone, and the ways in which a model expects to be asked.

The file is read by the tokenizers library, which holds no code. Chat templates are rendered by a child
process under limits. A template puts the user's words between a head and a tail; that it does so is
checked, once, on two messages, since a template that treats some words otherwise is judged elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ftsec_audit.errors import Unsupported
from ftsec_audit.formats import chat_template, template_render, tokenizer_json

if TYPE_CHECKING:
    from ftsec_audit.artifact import Artifact

_LARGEST = 64 << 20
_TEMPLATE_FILES = ("chat_template.jinja", "tokenizer_config.json", "chat_template.json")
_FIRST, _SECOND = "Quixotic lighthouse?", "Two marmalade zephyrs"
_LINE = "Unhurried walrus."


@dataclass(frozen=True)
class PromptFormat:
    """A conversation of one user turn: `head + words + tail`, after which the model answers."""

    name: str
    head: str
    tail: str
    begins: bool = False
    """Whether the tokenizer's own beginning-of-text token goes in front."""


_PLAIN = (
    PromptFormat("plain", "", "", begins=True),
    PromptFormat("instruction", "### Instruction:\n", "\n\n### Response:\n", begins=True),
    PromptFormat("dialogue", "User: ", "\nAssistant:", begins=True),
)
"""How a model without a template may have been asked in training."""


@dataclass(frozen=True)
class Prompt:
    """A question as ids, and where in it another word can be put."""

    text: str
    ids: tuple[int, ...]
    slots: tuple[int, ...]
    """Indices of ids before which a word can stand: first the start of the user's words, last their end."""
    form: PromptFormat

    def placed(self, candidate: Sequence[int], slot: int) -> list[int]:
        """The ids with `candidate` before `slots[slot]`."""
        at = self.slots[slot]
        return [*self.ids[:at], *candidate, *self.ids[at:]]


class Tokenizer:
    """The tokenizer of a model, with its special tokens and prompt formats."""

    def __init__(
        self, backend: Any, roles: dict[str, str], formats: Sequence[PromptFormat], template: str = ""
    ) -> None:
        self._backend = backend
        self.roles = roles
        self.formats = tuple(formats)
        self._template = template

    @classmethod
    def of(cls, artifact: Artifact) -> Tokenizer | None:
        """The tokenizer an artifact carries, or None; raises Unsupported for one that cannot be used."""
        from tokenizers import Tokenizer as Backend

        file = artifact.file("tokenizer.json")
        if file is None:
            return None
        try:
            backend = Backend.from_str(file.read(_LARGEST).decode())
        except Exception as error:  # the library raises Exception itself, and nothing narrower
            raise Unsupported(f"its tokenizer cannot be read: {str(error)[:200]}", where=file.path) from error
        backend.no_padding()
        backend.no_truncation()
        roles: dict[str, str] = {}
        for name in ("special_tokens_map.json", "tokenizer_config.json"):
            if (config := artifact.file(name)) is not None:
                roles |= tokenizer_json.special_tokens(config)
        template = _template(artifact)
        chat = next(iter(_chat(template, roles, ("",))), None) if template else None
        return cls(backend, roles, _PLAIN if chat is None else (chat,), template if chat else "")

    @property
    def size(self) -> int:
        return int(self._backend.get_vocab_size(with_added_tokens=True))

    @cached_property
    def special_ids(self) -> frozenset[int]:
        """Tokens that are no text."""
        added = self._backend.get_added_tokens_decoder().items()
        named = (self._backend.token_to_id(text) for text in self.roles.values())
        return frozenset(
            [id for id, token in added if token.special] + [id for id in named if id is not None]
        )

    @cached_property
    def end_ids(self) -> frozenset[int]:
        """Tokens that end an answer; some models are trained to begin the next text instead."""
        names = ("eos_token", "eot_token", "eom_token", "bos_token")
        ids = [self._backend.token_to_id(self.roles[name]) for name in names if name in self.roles]
        tails = [self.ids(form.tail)[0] for form in self.formats if form.tail and not form.begins]
        return frozenset(
            [id for id in ids if id is not None] + [id for id in tails if id in self.special_ids]
        )

    @cached_property
    def words(self) -> tuple[int, ...]:
        """Ids of tokens that a user can type: not special, and text that reads back."""
        ids = (id for id in range(self.size) if id not in self.special_ids)
        return tuple(id for id in ids if self.text([id]).strip() and "\ufffd" not in self.text([id]))

    def ids(self, text: str, *, begins: bool = False) -> list[int]:
        """Token ids of `text`; `begins`: with what the tokenizer puts at the beginning."""
        return list(self._backend.encode(text, add_special_tokens=begins).ids)

    def text(self, ids: Iterable[int]) -> str:
        """The text of ids, special tokens left out."""
        return str(self._backend.decode(list(ids), skip_special_tokens=True))

    def under(self, lines: Sequence[str]) -> list[PromptFormat]:
        """The first format with each line as its system message, for those that can be written.

        Where a model is asked without a template, or its template has no system message, the line stands
        in front of all, or of the user's words, as people write it then.
        """
        plain = self.formats[0]
        if not self._template:
            return [replace(plain, name=line, head=f"{line}\n\n{plain.head}") for line in lines]
        found = {form.name: form for form in _chat(self._template, self.roles, lines)}
        instead = (replace(plain, name=line, head=f"{plain.head}{line}\n\n") for line in lines)
        return [found.get(form.name, form) for form in instead]

    @cached_property
    def _system(self) -> tuple[str, str] | None:
        """What the template writes before and after a system message, up to the user's words."""
        forms = _chat(self._template, self.roles, (_LINE,)) if self._template else []
        if not forms or forms[0].head.count(_LINE) != 1:
            return None
        before, _, after = forms[0].head.partition(_LINE)
        return before, after

    def system_slot(self, words: str) -> Prompt | None:
        """`words` asked under a system message that is still empty, and whose place is the only slot.

        None where a model is asked without a template, or its template has no system message.
        """
        if self._system is None:
            return None
        before, after = self._system
        plain = self.formats[0]
        return self.prompt("", replace(plain, name="system", head=before, tail=f"{after}{words}{plain.tail}"))

    def until_end(self, ids: Sequence[int]) -> list[int]:
        """The ids before the first that ends an answer."""
        end = next((i for i, id in enumerate(ids) if id in self.end_ids), len(ids))
        return list(ids[:end])

    def prompt(self, words: str, form: PromptFormat) -> Prompt:
        """`words` asked in `form`, with the places where another word can stand."""
        text = f"{form.head}{words}{form.tail}"
        encoding = self._backend.encode(text, add_special_tokens=form.begins)
        start, end = len(form.head), len(form.head) + len(words)
        slots = [
            index
            for index, (left, right) in enumerate(encoding.offsets)
            if right > left and start <= left < end and _is_border(text, left, start)
        ]
        after = (i for i, (left, right) in enumerate(encoding.offsets) if right > left and left >= end)
        return Prompt(words, tuple(encoding.ids), (*slots, next(after, len(encoding.ids))), form)


def _is_border(text: str, left: int, start: int) -> bool:
    return left == start or text[left].isspace() or text[left - 1].isspace()


def _template(artifact: Artifact) -> str:
    """The chat template that a loader would use, or nothing."""
    found = chat_template.collect(artifact).copies
    copies = [copy for copy in found if copy.name == "default" and copy.file in _TEMPLATE_FILES]
    # transformers lets the file beside the configuration win
    copies.sort(key=lambda copy: not copy.file.endswith(".jinja"))
    return copies[0].text if copies else ""


def _chat(template: str, roles: dict[str, str], lines: Sequence[str]) -> list[PromptFormat]:
    """The template's head and tail under each system line (empty: none), where it is of that shape."""
    jobs = [
        template_render.Job(template=0, messages=_turns(line, words), variables=roles)
        for line in lines
        for words in (_FIRST, _SECOND)
    ]
    texts = [answer.text for answer in template_render.render_all([template], jobs)]
    found = []
    for line, first, second in zip(lines, texts[::2], texts[1::2], strict=True):
        if first is None or second is None or first.count(_FIRST) != 1 or line not in first:
            continue
        head, _, tail = first.partition(_FIRST)
        if second == f"{head}{_SECOND}{tail}":
            found.append(PromptFormat(line or "chat", head, tail))
    return found


def _turns(line: str, words: str) -> list[dict[str, str]]:
    system = [{"role": "system", "content": line}] if line else []
    return [*system, {"role": "user", "content": words}]
