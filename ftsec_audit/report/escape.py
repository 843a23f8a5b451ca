"""What of a hostile string may be shown: every text format passes what it shows through `visible`."""

from __future__ import annotations

import re
from itertools import groupby
from unicodedata import category

# Letters and marks by category, yet drawn as nothing: fillers, the joiner of graphemes, variation selectors.
_DRAWN_AS_NOTHING = frozenset(
    map(
        chr,
        (
            *(0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2800, 0x3164, 0xFFA0),
            *range(0x180B, 0x1810),
            *range(0xFE00, 0xFE0E),
            *range(0xE0100, 0xE01F0),
        ),
    )
)
_SPACES = str.maketrans(dict.fromkeys("\u00a0\u2009\u202f", " "))
_MAX_MARKS = 3
_PLAIN = re.compile(r"[ -~]*")


def visible(text: str, limit: int | None = None) -> str:
    """`text` on one line, with everything that is drawn as nothing, or moves what is drawn, spelled out.

    Control characters and escape sequences, line breaks, bidirectional overrides, zero-width and tag
    characters, lone surrogates and stacks of combining marks become `\\n`, `\\x1b`, `\\u202e` …; words in
    any script stay as they are. With a `limit`, at most that many characters, the last one an ellipsis.
    """
    if limit is not None and len(text) > limit:
        return visible(text[: limit - 1])[: limit - 1] + "…"
    if _PLAIN.fullmatch(text):
        return text
    text = text.translate(_SPACES)
    runs = ("".join(run) for _, run in groupby(text, key=lambda char: category(char).startswith("M")))
    shown = "".join(run[:_MAX_MARKS] + _spelled(run[_MAX_MARKS:]) if _is_marks(run) else run for run in runs)
    return "".join(
        char if char.isprintable() and char not in _DRAWN_AS_NOTHING else _spelled(char) for char in shown
    )


def _is_marks(run: str) -> bool:
    return category(run[0]).startswith("M")


def _spelled(text: str) -> str:
    return text.encode("ascii", "backslashreplace").decode("ascii").translate(_CONTROLS)


_CONTROLS = str.maketrans(
    {code: repr(chr(code))[1:-1] for code in (*range(0x20), 0x7F)}  # repr spells these as \n, \x1b, …
)
