"""Constant folding for Jinja expressions: the string an expression always has, however it is spelt.

Templates that hide a name put it together from pieces; what matters is the name they end up with.
"""

from __future__ import annotations

from collections.abc import Callable

from jinja2 import nodes

_SIMPLE: dict[str, Callable[[str], str]] = {
    "lower": str.lower,
    "upper": str.upper,
    "trim": str.strip,
    "strip": str.strip,
    "title": str.title,
    "string": str,
}


def fold(node: nodes.Node) -> str | None:
    """The constant string value of an expression, or None when it has none that can be seen."""
    if isinstance(node, nodes.Const):
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, nodes.TemplateData):
        return node.data
    if isinstance(node, nodes.Concat):
        return _join([fold(part) for part in node.nodes], "")
    if isinstance(node, nodes.Add):
        return _join([fold(node.left), fold(node.right)], "")
    if isinstance(node, nodes.Filter) and node.node is not None:
        return _filtered(node, node.node)
    if isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Slice):
        text = fold(node.node)
        return text[::-1] if text is not None and isinstance(node.arg.step, nodes.Neg) else None
    if isinstance(node, nodes.Call) and isinstance(node.node, nodes.Getattr):
        return _method(node.node, node.args)
    return None


def _join(parts: list[str | None], separator: str) -> str | None:
    known = [part for part in parts if part is not None]
    return separator.join(known) if len(known) == len(parts) else None


def _joined_items(items: nodes.Expr, separator: str) -> str | None:
    if isinstance(items, (nodes.List, nodes.Tuple)):
        return _join([fold(item) for item in items.items], separator)
    return None


def _replaced(text: str, args: list[nodes.Expr]) -> str | None:
    old, new = (fold(args[0]), fold(args[1])) if len(args) >= 2 else (None, None)
    # The product is bounded: folding must not become the bomb it looks for.
    if old is None or new is None or len(text) * max(1, len(new)) > 1 << 20:
        return None
    return text.replace(old, new)


def _filtered(node: nodes.Filter, operand: nodes.Expr) -> str | None:
    if node.name == "join" and isinstance(operand, (nodes.List, nodes.Tuple)):
        return _joined_items(operand, (fold(node.args[0]) if node.args else "") or "")
    text = fold(operand)
    if text is None:
        return None
    if node.name == "reverse":
        return text[::-1]
    if node.name == "replace":
        return _replaced(text, node.args)
    if node.name == "format":
        return _formatted(text, node.args)
    return _SIMPLE[node.name](text) if node.name in _SIMPLE else None


def _formatted(text: str, args: list[nodes.Expr]) -> str | None:
    values = tuple(arg.value for arg in args if isinstance(arg, nodes.Const))
    if len(values) != len(args) or any(digit in text for digit in "0123456789*"):
        return None  # a width could ask for gigabytes
    try:
        return text % values
    except (TypeError, ValueError, OverflowError):
        return None


def _method(method: nodes.Getattr, args: list[nodes.Expr]) -> str | None:
    text = fold(method.node)
    if text is None:
        return None
    if method.attr == "join" and len(args) == 1:
        return _joined_items(args[0], text)
    if method.attr == "replace":
        return _replaced(text, args)
    return _SIMPLE[method.attr](text) if method.attr in _SIMPLE and not args else None
