"""What a Jinja chat template would do, read off its syntax tree; nothing is compiled or rendered.

A chat template is a program that every user of a model runs. Two questions are asked of its tree:
does an expression reach for Python's internals (injection), and does what the template writes depend
on what a message *says* or on the date (poisoning, `template_taint`)?
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from jinja2 import Environment, nodes
from jinja2.exceptions import TemplateSyntaxError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser

from ftsec_audit.errors import BudgetExceeded, FormatError
from ftsec_audit.formats.template_fold import fold
from ftsec_audit.formats.template_taint import Condition, conditions


@dataclass(frozen=True, kw_only=True)
class TemplateLimits:
    """Bounds on what is parsed; the largest vendor template known is about 20 kB."""

    characters: int = 1 << 20
    nodes: int = 100_000
    number: int = 100_000
    """A larger integer constant in a chat template asks for memory or time, not for text."""


@dataclass(frozen=True)
class Fact:
    """One thing found in a tree: which kind, where, and the expression or text itself."""

    kind: str
    line: int
    excerpt: str


@dataclass(frozen=True, kw_only=True)
class TemplateFacts:
    """All that was found in one template."""

    injections: tuple[Fact, ...]
    conditions: tuple[Condition, ...]
    hidden_text: tuple[Fact, ...]
    constants: tuple[str, ...] = field(repr=False)
    """Every string the template can compare with, shortest first, constant expressions folded."""


class _Generation(Extension):
    """`{% generation %}` marks assistant tokens for training masks; it writes nothing itself."""

    tags = {"generation"}  # noqa: RUF012 - Jinja declares it as an instance attribute

    def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


_ENVIRONMENT = Environment(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols])

_DUNDER = re.compile(r"__[A-Za-z]\w*")
_PYTHON_NAMES = re.compile(
    r"os\.system|os\.popen|popen|subprocess(?:\.\w+)?|importlib|builtins|subclasses|getitem|"
    r"f_globals|f_builtins|func_globals"
)
_INTERNAL_ATTRIBUTES = frozenset(
    [
        "mro",
        "func_globals",
        "gi_frame",
        "gi_code",
        "cr_frame",
        "tb_frame",
        "f_globals",
        "f_builtins",
        "f_back",
    ]
)
_RUNTIME_NAMES = frozenset(["lipsum", "cycler", "joiner", "self", "caller", "varargs", "kwargs"])
_ATTRIBUTE_FILTERS = frozenset(
    ["map", "selectattr", "rejectattr", "groupby", "sort", "sum", "unique", "max", "min"]
)
_FORMAT_FIELD = re.compile(r"\{[^{}]*(?:\.|\[)_")
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b-\u200f\u202a-\u202e"
    "\u2060-\u206f\u3164\ufeff\uffa0\U000e0000-\U000e0fff]"
)
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{16,}={0,2}")


def analyse(text: str, limits: TemplateLimits | None = None) -> TemplateFacts:
    """The facts of one template.

    Raises:
        FormatError: it is not a Jinja template.
        BudgetExceeded: it is too large or too deeply nested to be parsed.
    """
    limits = limits or TemplateLimits()
    if len(text) > limits.characters:
        raise BudgetExceeded(f"the template has {len(text):,} characters, more than {limits.characters:,}")
    try:
        everything = list(_walk(_ENVIRONMENT.parse(text), limits.nodes))
        strings = {folded for node in everything if isinstance(node, nodes.Expr) if (folded := fold(node))}
        return TemplateFacts(
            injections=tuple(dict.fromkeys(_injections(everything, limits))),
            conditions=tuple(conditions(everything)),
            hidden_text=tuple(dict.fromkeys(_hidden_text(everything))),
            constants=tuple(sorted(strings, key=lambda string: (len(string), string))),
        )
    except TemplateSyntaxError as error:
        raise FormatError(f"not a Jinja template: {error.message} (line {error.lineno})") from error
    except (RecursionError, OverflowError, ValueError) as error:
        raise BudgetExceeded(f"the template cannot be parsed: {type(error).__name__}") from error


def decoded_base64(text: str) -> str | None:
    """What a base64 string says, if it says something in words; None for identifiers and noise."""
    bare = text.rstrip("=")
    alphabet = b"-_" if set(bare) & set("-_") else None
    try:
        decoded = base64.b64decode(bare + "=" * (-len(bare) % 4), altchars=alphabet, validate=True).decode()
    except (binascii.Error, ValueError):
        return None
    letters = sum(character.isalpha() or character.isspace() for character in decoded)
    return decoded if decoded.isprintable() and len(decoded) >= 8 and letters >= 0.8 * len(decoded) else None


def _walk(tree: nodes.Node, budget: int) -> Iterator[nodes.Node]:
    stack = [tree]
    while stack:
        node = stack.pop()
        budget -= 1
        if budget < 0:
            raise BudgetExceeded("the template has too many nodes")
        yield node
        stack.extend(reversed(list(node.iter_child_nodes())))


def _injections(everything: list[nodes.Node], limits: TemplateLimits) -> Iterator[Fact]:
    for node in everything:
        for kind, excerpt in _injection(node, limits):
            yield Fact(kind, node.lineno, excerpt[:200])


def _injection(node: nodes.Node, limits: TemplateLimits) -> Iterator[tuple[str, str]]:
    if isinstance(node, nodes.Getattr):
        yield from _attribute(node)
    elif isinstance(node, nodes.Getitem):
        key = fold(node.arg)
        if key is not None and (key.startswith("_") or key in _INTERNAL_ATTRIBUTES):
            yield "reaches for a Python internal attribute", f"[{key!r}]"
        elif key is None and isinstance(node.arg, (nodes.Concat, nodes.Filter)) and _glues_text(node.arg):
            yield "computes the name of what it reads", "[…~…]"
    elif isinstance(node, nodes.Filter):
        yield from _filter(node)
    elif isinstance(node, (nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)):
        yield "loads another template", type(node).__name__.lower()
    elif isinstance(node, nodes.Const) and isinstance(node.value, int) and abs(node.value) > limits.number:
        yield "uses a number that can only exhaust time or memory", hex(node.value)[:40]
    elif isinstance(node, nodes.Pow):
        yield "computes a power", "**"
    if isinstance(node, nodes.Expr) and not isinstance(node, nodes.TemplateData) and (text := fold(node)):
        yield from _spelt(text)


def _attribute(node: nodes.Getattr) -> Iterator[tuple[str, str]]:
    if node.attr.startswith("_") or node.attr in _INTERNAL_ATTRIBUTES:
        yield "reaches for a Python internal attribute", f".{node.attr}"
    if isinstance(node.node, nodes.Name) and node.node.name in _RUNTIME_NAMES:
        yield "reads an attribute of a template runtime object", f"{node.node.name}.{node.attr}"
    if node.attr == "format_map":
        yield "formats a string from a mapping", ".format_map"
    if node.attr == "format" and (text := fold(node.node)) and _FORMAT_FIELD.search(text):
        yield "formats a string with a field that reads internal attributes", text


def _filter(node: nodes.Filter) -> Iterator[tuple[str, str]]:
    if node.name == "attr":
        name = fold(node.args[0]) if node.args else None
        yield "reads an attribute by name", f"|attr({name!r})" if name else "|attr(…)"
    if node.name in _ATTRIBUTE_FILTERS:
        given = [*node.args[:1], *(pair.value for pair in node.kwargs if pair.key == "attribute")]
        for name in filter(None, map(fold, given)):
            if name == "attr" or any(part.startswith("_") for part in name.split(".")):
                yield "reads an internal attribute by name", f"|{node.name}({name!r})"
    if node.name == "format" and node.node is not None and "%c" in (fold(node.node) or ""):
        yield "spells text by character codes", fold(node.node) or ""


def _glues_text(node: nodes.Node) -> bool:
    """Whether an expression puts string literals together (rather than indexing by a number)."""
    return any(isinstance(part.value, str) for part in node.find_all(nodes.Const))


def _spelt(text: str) -> Iterator[tuple[str, str]]:
    if len(text) > 120 or re.search(r"\w\s+\w", text):
        return  # prose and tool descriptions may mention anything; a name is one word
    for candidate in (text, text[::-1]):
        if _DUNDER.search(candidate) or _PYTHON_NAMES.fullmatch(candidate.strip()):
            yield "spells the name of a Python internal", candidate


def _hidden_text(everything: list[nodes.Node]) -> Iterator[Fact]:
    for node in everything:
        text = node.data if isinstance(node, nodes.TemplateData) else fold(node)
        if not text:
            continue
        if found := _INVISIBLE.findall(text):
            points = " ".join(f"U+{ord(character):04X}" for character in found[:8])
            yield Fact("invisible characters", node.lineno, points)
        for match in _BASE64.finditer(text):
            if decoded := decoded_base64(match.group()):
                yield Fact("text hidden as base64", node.lineno, decoded[:200])
