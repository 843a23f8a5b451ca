"""How large a pickled object becomes when something walks over it: nesting, and leaves counted as shared."""

from __future__ import annotations

from ftsec_audit.formats.pickle_values import children


def expansion(value: object) -> tuple[int, int, int]:
    """(depth, parts counted once, parts counted every time they are reached) of a value.

    Iterative and linear in the number of distinct parts; a cycle counts once. The third number is what
    hashing, comparing, printing or copying the object costs.
    """
    sizes: dict[int, tuple[int, int]] = {}  # id → (depth, expanded)
    on_path: set[int] = set()
    keep: list[object] = []  # children may be made on the fly: an id must not be reused
    stack: list[tuple[object, bool]] = [(value, False)]
    while stack:
        node, done = stack.pop()
        key = id(node)
        if done:
            on_path.discard(key)
            below = [sizes[id(part)] for part in children(node) if id(part) in sizes]
            depth = 1 + max((d for d, _ in below), default=0)
            sizes[key] = depth, min(1 << 80, 1 + sum(n for _, n in below))
            continue
        if key in sizes or key in on_path:
            continue
        on_path.add(key)
        keep.append(node)
        stack.append((node, True))
        stack.extend((part, False) for part in children(node) if _is_compound(part))
    depth, total = sizes[id(value)]
    return depth, len(sizes), total


def _is_compound(value: object) -> bool:
    return not isinstance(value, (str, bytes, int, float, type(None)))
