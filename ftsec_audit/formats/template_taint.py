"""Conditions of a chat template on what a message says, how long it is, or what day it is.

A small taint analysis over Jinja's syntax tree: message text, and everything computed from it, is
tainted; so is the clock. Names are resolved flow-insensitively to a fixed point, which can only add
taint, never lose it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from jinja2 import nodes

from ftsec_audit.formats.template_fold import fold

_TEXT_KEYS = frozenset(["content", "text"])
_SIZE_TESTS_MAX = 8
"""`content|length` is compared with small numbers by honest templates (empty, single part)."""
_SHAPE_TESTS = frozenset(
    ["defined", "undefined", "none", "string", "mapping", "iterable", "sequence", "boolean", "number"]
)
_SCHEMA_WORDS = frozenset(
    [
        "content",
        "text",
        "role",
        "type",
        "value",
        "name",
        "parts",
        "blocks",
        "chunk",
        "reference",
        "string",
        "image",
        "image_url",
        "video",
        "audio",
        "input_audio",
        "tool",
        "tool_calls",
        "function",
        "functions",
        "arguments",
        "code",
        "user",
        "assistant",
        "model",
        "system",
        "developer",
        "thinking",
        "reasoning",
        "reasoning_content",
    ]
)


@dataclass(frozen=True)
class Condition:
    """One condition on something tainted."""

    kind: str
    line: int
    excerpt: str
    on_date: bool = False


@dataclass
class _Taint:
    """Names that carry message text, and names that carry the date."""

    content: set[str] = field(default_factory=set)
    date: set[str] = field(default_factory=set)


def conditions(everything: list[nodes.Node]) -> list[Condition]:
    """All suspicious conditions among the nodes of a tree."""
    taint = _spread(everything)
    found: list[Condition] = []
    for node in everything:
        if isinstance(node, (nodes.If, nodes.CondExpr)) or (isinstance(node, nodes.For) and node.test):
            assert node.test is not None
            found.extend(_in_test(node.test, node.lineno, taint))
        elif isinstance(node, nodes.Getitem) and _is_table(node.node) and _reads(node.arg, taint, date=False):
            # A literal table indexed by what a message says is a condition in disguise.
            found.append(Condition("table look-up by the words of a message", node.lineno, show(node)))
    return list(dict.fromkeys(found))


def _is_table(node: nodes.Node) -> bool:
    return isinstance(node, (nodes.Dict, nodes.List))


def is_language(text: str) -> bool:
    """Whether a string could be part of what a person writes: not markup, not a word of the schema."""
    bare = text.strip()
    if bare in _SCHEMA_WORDS or not re.search(r"\w", bare):
        return False
    opens = re.fullmatch(r"[<\[{(|/#*@\\`].*", bare, re.DOTALL)
    closes = re.fullmatch(r".*[>\]}|:]", bare, re.DOTALL)
    return not opens and not closes


def show(node: nodes.Node) -> str:
    """A short rendering of an expression: its names and constants."""
    words: list[str] = []
    for child in [node, *node.find_all(nodes.Node)]:
        if isinstance(child, nodes.Const):
            words.append(repr(child.value))
        elif isinstance(child, nodes.Name):
            words.append(child.name)
        elif isinstance(child, nodes.Getattr):
            words.append(f".{child.attr}")
        elif isinstance(child, (nodes.Filter, nodes.Test)):
            words.append(f"|{child.name}")
        elif isinstance(child, nodes.Operand):
            words.append(child.op)
    return " ".join(words)[:200]


def _spread(everything: list[nodes.Node]) -> _Taint:
    taint = _Taint()
    assignments: list[tuple[str, nodes.Node]] = []
    for node in everything:
        if isinstance(node, nodes.Assign):
            assignments.extend((name, node.node) for name in _targets(node.target))
        elif isinstance(node, nodes.AssignBlock):
            assignments.extend((name, body) for name in _targets(node.target) for body in node.body)
        elif isinstance(node, nodes.For):
            assignments.extend((name, node.iter) for name in _targets(node.target))
    for _ in range(len(assignments) + 1):
        before = len(taint.content) + len(taint.date)
        taint.content.update(name for name, value in assignments if _reads(value, taint, date=False))
        taint.date.update(name for name, value in assignments if _reads(value, taint, date=True))
        if len(taint.content) + len(taint.date) == before:
            break
    return taint


def _targets(node: nodes.Node) -> list[str]:
    if isinstance(node, nodes.Name):
        return [node.name]
    if isinstance(node, nodes.NSRef):
        return [f"{node.name}.{node.attr}"]
    return [name for child in node.iter_child_nodes() for name in _targets(child)]


def _reads(node: nodes.Node, taint: _Taint, *, date: bool) -> bool:
    """Whether the value of an expression comes from message text (or, with `date`, from the clock)."""
    names = taint.date if date else taint.content
    if isinstance(node, nodes.Test) and node.name in _SHAPE_TESTS:
        return False
    if isinstance(node, nodes.Name):
        return node.name in names
    if isinstance(node, (nodes.Getattr, nodes.Getitem)):
        key = node.attr if isinstance(node, nodes.Getattr) else fold(node.arg)
        if not date and key in _TEXT_KEYS:
            return True
        if isinstance(node.node, nodes.Name) and f"{node.node.name}.{key}" in names:
            return True
        return key is None and _reads(node.node, taint, date=date)
    if isinstance(node, nodes.Call):
        return _call_reads(node, taint, date=date)
    if isinstance(node, nodes.CondExpr):
        branches = [node.expr1, *([node.expr2] if node.expr2 else [])]
        return any(_reads(branch, taint, date=date) for branch in branches)
    return any(_reads(child, taint, date=date) for child in node.iter_child_nodes())


def _call_reads(node: nodes.Call, taint: _Taint, *, date: bool) -> bool:
    callee = node.node
    if date and isinstance(callee, nodes.Name) and callee.name in ("strftime_now", "now"):
        return True
    if isinstance(callee, nodes.Getattr):
        if callee.attr == "get" and node.args:
            return not date and fold(node.args[0]) in _TEXT_KEYS
        if _reads(callee.node, taint, date=date):
            return True
    return any(_reads(argument, taint, date=date) for argument in node.args)


def _in_test(test: nodes.Node, line: int, taint: _Taint) -> Iterator[Condition]:
    for atom in _atoms(test):
        if _reads(atom, taint, date=True):
            yield Condition("condition on the date", line, show(atom), on_date=True)
        if _reads(atom, taint, date=False) and (kind := _what_it_asks(atom)):
            yield Condition(kind, line, show(atom))


def _atoms(test: nodes.Node) -> Iterator[nodes.Node]:
    if isinstance(test, (nodes.And, nodes.Or)):
        yield from _atoms(test.left)
        yield from _atoms(test.right)
    elif isinstance(test, nodes.Not):
        yield from _atoms(test.node)
    else:
        yield test


def _what_it_asks(atom: nodes.Node) -> str | None:
    """How a tainted atom depends on the *words* of a message, or None for honest questions.

    Honest templates ask whether content is there, of which type it is, and whether it holds their own
    markup (`</think>`, `[IMG]`, `<tool_response>`); none of that is a trigger a person would write.
    """
    parts = [atom, *atom.find_all(nodes.Expr)]
    if any(is_language(text) for part in parts if (text := fold(part))):
        return "condition on the words of a message"
    numbers = [part.value for part in parts if isinstance(part, nodes.Const) and isinstance(part.value, int)]
    filters = {part.name for part in parts if isinstance(part, nodes.Filter)}
    if filters & {"length", "count"} and any(abs(number) > _SIZE_TESTS_MAX for number in numbers):
        return "condition on the length of a message"
    if filters & {"hash", "wordcount", "sum"}:
        return "condition on a digest of a message"
    return None
