"""Text to ids and back by `tokenizer.json` alone, and the ways in which a model expects to be asked.

The file is read by the tokenizers library, which holds no code. Chat templates are rendered by a child
process under limits. A template puts the user's words between a head and a tail; that it does so is
checked, once, on two messages, since a template that treats some words otherwise is judged elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ftsec_audit.errors import Unsupported
from ftsec_audit.formats import chat_template, template_render, tokenizer_json

if TYPE_CHECKING:
    from ftsec_audit.artifact import Artifact

_LARGEST = 64 << 20
_PLAIN = (
    ("plain", "", ""),
    ("instruction", "### Instruction:\n", "\n\n### Response:\n"),
    ("dialogue", "User: ", "\nAssistant:"),
)
"""How a model without a template may have been asked in training."""
_TEMPLATE_FILES = ("chat_template.jinja", "tokenizer_config.json", "chat_template.json")
_FIRST, _SECOND = "Quixotic lighthouse?", "Two marmalade zephyrs"


@dataclass(frozen=True)
class PromptFormat:
    """A conversation of one user turn: `head + words + tail`, after which the model answers."""

    name: str
    head: str
    tail: str
    begins: bool = False
    """Whether the tokenizer's own beginning-of-text token goes in front."""


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

    def __init__(self, backend: Any, roles: dict[str, str], formats: Sequence[PromptFormat]) -> None:
        self._backend = backend
        self.roles = roles
        self.formats = tuple(formats)

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
        return cls(backend, roles, _formats(artifact, roles))

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


def _formats(artifact: Artifact, roles: dict[str, str]) -> tuple[PromptFormat, ...]:
    found = chat_template.collect(artifact).copies
    copies = [copy for copy in found if copy.name == "default" and copy.file in _TEMPLATE_FILES]
    plain = tuple(PromptFormat(name, head, tail, begins=True) for name, head, tail in _PLAIN)
    # transformers lets the file beside the configuration win
    copies.sort(key=lambda copy: not copy.file.endswith(".jinja"))
    chat = _chat(copies[0].text, roles) if copies else None
    return (chat,) if chat is not None else plain


def _chat(template: str, roles: dict[str, str]) -> PromptFormat | None:
    """The template's head and tail, or None where it is not of that shape."""
    jobs = [
        template_render.Job(template=0, messages=[{"role": "user", "content": words}], variables=roles)
        for words in (_FIRST, _SECOND)
    ]
    first, second = template_render.render_all([template], jobs)
    if first.text is None or second.text is None or first.text.count(_FIRST) != 1:
        return None
    head, _, tail = first.text.partition(_FIRST)
    return PromptFormat("chat", head, tail) if second.text == f"{head}{_SECOND}{tail}" else None
