"""How large a pickled object becomes when something walks over it: nesting, and parts counted as shared."""

from __future__ import annotations

from dataclasses import dataclass

from ftsec_audit.formats.pickle_values import children


@dataclass(frozen=True, kw_only=True)
class Expansion:
    """What hashing, comparing, printing or copying an object costs."""

    depth: int
    """Levels of nesting, counted up to the limit."""
    parts: int
    """Compound parts, each counted once."""
    visits: int
    """The same, each counted every time it is reached; at most 2⁸⁰."""


def expansion(value: object, *, max_depth: int, max_parts: int) -> Expansion:
    """Measure a value without recursion, in time linear in its distinct parts; a cycle counts once.

    Stops at the limits: a value deeper than `max_depth` is reported with that depth, one of more than
    `max_parts` parts with the visits counted so far.
    """
    sizes: dict[int, tuple[int, int]] = {}  # id → (depth, visits); every id stays alive through `value`
    on_path: set[int] = set()
    stack: list[tuple[object, bool]] = [(value, False)]
    while stack and len(sizes) < max_parts:
        node, done = stack.pop()
        key = id(node)
        if done:
            on_path.discard(key)
            below = [sizes[id(part)] for part in children(node) if id(part) in sizes]
            depth = 1 + max((level for level, _ in below), default=0)
            sizes[key] = depth, min(1 << 80, 1 + sum(visits for _, visits in below))
        elif key not in sizes and key not in on_path:
            if len(on_path) >= max_depth:
                return Expansion(depth=max_depth, parts=len(sizes), visits=0)
            on_path.add(key)
            stack.append((node, True))
            stack.extend((part, False) for part in children(node) if _is_compound(part))
    depth, visits = sizes.get(id(value), (0, 0))
    return Expansion(depth=depth, parts=len(sizes), visits=visits)


def _is_compound(value: object) -> bool:
    return not isinstance(value, (str, bytes, int, float, type(None)))
