"""Would matching a regular expression take exponential time? Asked of patterns found in artifacts.

A pattern is parsed with Python's own parser. For every repetition that can repeat something which
itself repeats or alternates, a string is derived that reaches it, pumps it, and then fails; the match
is tried in a child process with a CPU limit. So a pattern is only called catastrophic when it was.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from re import _constants as sre  # type: ignore[attr-defined]
from re import _parser as sre_parse  # type: ignore[attr-defined]
from typing import Any

_PUMPS = 28
_SECONDS = 0.5
_PATTERN_LENGTH = 20_000
_NODES = 2_000
_MODULE_NAMES = (
    "base_model.model.model.layers.31.self_attn.q_proj",
    "model.language_model.layers.0.mlp.experts.127.down_proj",
    "a" * 64,
)
_PROBE = """
import json, re, signal, sys
pattern, strings, seconds = json.load(sys.stdin)
signal.setitimer(signal.ITIMER_PROF, seconds)  # nobody catches it: the process ends
compiled = re.compile(pattern)
for index, text in enumerate(strings):
    print(index, flush=True)
    compiled.fullmatch(text)
print("done", flush=True)
"""


def catastrophic(pattern: str) -> str | None:
    """A string on which matching exceeds its time, or the reason why the pattern is unusable; else None."""
    if len(pattern) > _PATTERN_LENGTH:
        return f"a pattern of {len(pattern):,} characters"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = sre_parse.parse(pattern)
        attacks = list(dict.fromkeys(_attacks(list(tree))))
    except (re.error, RecursionError, OverflowError) as error:
        return f"not a valid regular expression: {error}"
    if not attacks:
        return None
    return _slow_string(pattern, [*attacks[:12], *_MODULE_NAMES])


def _slow_string(pattern: str, strings: list[str]) -> str | None:
    command = [sys.executable, "-I", "-c", _PROBE]
    request = json.dumps([pattern, strings, _SECONDS])
    try:
        # The CPU limit ends a hopeless match; the timeout only guards against a machine under load.
        done = subprocess.run(
            command, input=request, capture_output=True, text=True, timeout=40 * _SECONDS, check=False
        )
        lines = done.stdout.split()
    except subprocess.TimeoutExpired:
        return strings[0]
    if lines and lines[-1] == "done":
        return None
    return strings[int(lines[-1])] if lines else "compiling the pattern takes more than its time"


def _attacks(tree: list[Any], prefix: str = "") -> Iterator[str]:
    """Strings that pump each ambiguous repetition, reached through a minimal prefix."""
    for index, item in enumerate(tree):
        before = prefix + "".join(_sample(previous) for previous in tree[:index])
        for body in _bodies(item):
            if item[0] in _REPEATS and item[1][1] > _PUMPS and _is_ambiguous(body):
                unit = "".join(_sample(part) for part in body) or "a"
                yield before + unit * _PUMPS + "\x00"
                yield before + unit[:1] * (2 * _PUMPS) + "\x00"
            yield from _attacks(body, before)
    if _runs(tree) >= 3:
        # Several unbounded repetitions in a row are polynomial; a long string shows whether it matters.
        yield prefix + "a" * 3000 + "\x00"


_REPEATS = (sre.MAX_REPEAT, sre.MIN_REPEAT)


def _bodies(item: tuple[Any, Any]) -> list[list[Any]]:
    operator, argument = item
    if operator in _REPEATS or operator is sre.POSSESSIVE_REPEAT:
        return [list(argument[2])]
    if operator is sre.SUBPATTERN:
        return [list(argument[3])]
    if operator is sre.BRANCH:
        return [list(branch) for branch in argument[1]]
    if operator in (sre.ASSERT, sre.ASSERT_NOT):
        return [list(argument[1])]
    return [list(argument)] if operator is sre.ATOMIC_GROUP else []


def _is_ambiguous(body: list[Any]) -> bool:
    """Whether a repeated body repeats or alternates inside, the precondition of exponential time."""
    for item in body:
        if item[0] is sre.BRANCH or (item[0] in _REPEATS and item[1][1] > item[1][0]):
            return True
        if any(_is_ambiguous(inner) for inner in _bodies(item)):
            return True
    return False


def _runs(tree: list[Any]) -> int:
    return sum(1 for item in tree if item[0] in _REPEATS and item[1][1] > _PUMPS)


def _sample(item: tuple[Any, Any]) -> str:
    """A shortest string that one item of a pattern matches."""
    operator, argument = item
    if operator is sre.LITERAL:
        return chr(argument)
    if operator is sre.NOT_LITERAL:
        return "a" if argument != ord("a") else "b"
    if operator is sre.IN:
        return _of_class(argument)
    if operator in _REPEATS or operator is sre.POSSESSIVE_REPEAT:
        return "".join(_sample(part) for part in argument[2]) * max(1, min(int(argument[0]), 4))
    if operator is sre.SUBPATTERN:
        return "".join(_sample(part) for part in argument[3])
    if operator is sre.BRANCH:
        return "".join(_sample(part) for part in argument[1][0])
    return "a" if operator is sre.ANY else ""


def _of_class(members: list[tuple[Any, Any]]) -> str:
    operator, argument = members[0]
    if operator is sre.LITERAL:
        return chr(argument)
    if operator is sre.RANGE:
        return chr(argument[0])
    if operator is sre.CATEGORY:
        return "1" if argument is sre.CATEGORY_DIGIT else " " if argument is sre.CATEGORY_SPACE else "a"
    return "~"
