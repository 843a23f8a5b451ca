"""Child process that renders chat templates: standard library and Jinja only, run as a script.

Reads one JSON object from standard input, `{"templates": [...], "limits": {...}, "jobs": [...]}`, and
answers one JSON line per job, in order, flushed at once, so that a parent that must kill it keeps
what was finished; the first job that exceeds a limit is the last one tried. Rendering happens in
Jinja's immutable sandbox, under limits on memory, time, output and the size of arithmetic; loaders do
not exist.

The words of messages are strings that listen: whatever a template compares them with at run time is
part of the answer, however the template spelt it.
"""

from __future__ import annotations

import json
import resource
import signal
import sys
from collections.abc import Iterable
from typing import Any, NoReturn

from jinja2 import Template, nodes, runtime
from jinja2.exceptions import TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

_NUMBER_LIMIT = 1 << 20
_HEARD_LIMIT = 100
_HEARD: list[str] = []
"""What the current job compared with the words of a message."""


class _Limit(Exception):
    """A job asked for more than it may have."""


class Listening(str):
    """Words of a message. Notes every string it is compared with; what is computed from it listens too."""

    __slots__ = ()
    __hash__ = str.__hash__

    def __str__(self) -> str:
        return self  # `str(value)` is how most filters begin

    def __eq__(self, other: object) -> bool:
        _note(other)
        return str.__eq__(self, other)

    def __ne__(self, other: object) -> bool:
        _note(other)
        return str.__ne__(self, other)

    def __radd__(self, other: object) -> Listening:
        return Listening(f"{other}{str.__str__(self)}")


def _note(value: object) -> None:
    for one in value if isinstance(value, tuple) else (value,):
        fresh = isinstance(one, str) and not isinstance(one, Listening) and one not in _HEARD
        if fresh and 1 < len(one) <= 120 and len(_HEARD) < _HEARD_LIMIT:
            _HEARD.append(one)


def listening(value: Any) -> Any:
    """The value with every string in it made to listen."""
    if isinstance(value, str):
        return Listening(value)
    if isinstance(value, (list, tuple)):
        return type(value)(listening(item) for item in value)
    return {key: listening(item) for key, item in value.items()} if isinstance(value, dict) else value


def _listens(name: str) -> Any:
    plain = getattr(str, name)

    def method(self: str, *args: Any, **options: Any) -> Any:
        for value in args:
            _note(value)
        return listening(plain(self, *args, **options))

    return method


for _name in (
    "__contains__", "__getitem__", "__add__", "startswith", "endswith", "find", "rfind", "index", "rindex",
    "count", "split", "rsplit", "partition", "rpartition", "splitlines", "replace", "removeprefix",
    "removesuffix", "strip", "lstrip", "rstrip", "lower", "upper", "casefold", "title", "capitalize",
    "swapcase",
):  # fmt: skip
    setattr(Listening, _name, _listens(_name))


def _joined(seq: Iterable[Any]) -> str:
    """Jinja's `~`, which would make plain text of words that listen."""
    parts = [str(piece) for piece in seq]
    text = "".join(parts)
    return Listening(text) if any(isinstance(part, Listening) for part in parts) else text


class _Generation(Extension):
    tags = {"generation"}  # noqa: RUF012 - Jinja declares it as an instance attribute

    def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's sandbox with arithmetic that cannot allocate: `'a' * 10**9` is refused."""

    intercepted_binops = frozenset(["*", "**", "%"])

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "**":
            raise _Limit("power")
        if operator == "*" and _magnitude(left) * _magnitude(right) > _NUMBER_LIMIT:
            raise _Limit("multiplication")
        if (
            operator == "%"
            and isinstance(left, str)
            and any(_magnitude(part) > 10_000 for part in _parts(right))
        ):
            raise _Limit("formatting")
        return super().call_binop(context, operator, left, right)


def _magnitude(value: Any) -> int:
    return (
        abs(int(value))
        if isinstance(value, (int, float))
        else max(1, len(value))
        if hasattr(value, "__len__")
        else 1
    )


def _parts(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def _raise_exception(message: str) -> NoReturn:
    raise TemplateError(str(message)[:200])


def _tojson(value: Any, indent: int | None = None, **_options: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=min(indent, 8) if indent else None)


def _environment(date: str) -> _Sandbox:
    sandbox = _Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols])
    sandbox.filters["tojson"] = _tojson
    # A width or an indent of 10**9 would be a memory bomb inside one C call.
    sandbox.filters["center"] = lambda text, width=80: str(text).center(min(int(width), 1000))
    sandbox.globals["raise_exception"] = _raise_exception
    sandbox.globals["strftime_now"] = lambda format: date if "%" in str(format) else str(format)
    return sandbox


def _stop(_signal: int, _frame: object) -> NoReturn:
    raise _Limit("time")


def _render(template: Template, context: dict[str, Any], limit: int) -> str:
    pieces: list[str] = []
    size = 0
    for piece in template.generate(context):
        size += len(piece)
        if size > limit:
            raise _Limit("output")
        pieces.append(piece)
    return "".join(pieces)


def _answer(
    templates: list[str], job: dict[str, Any], limits: dict[str, Any], compiled: dict[Any, Any]
) -> dict[str, Any]:
    key = (job["template"], job.get("date", ""))
    _HEARD.clear()
    context = {**job["context"], "messages": [_hearing(message) for message in job["context"]["messages"]]}
    signal.setitimer(signal.ITIMER_REAL, limits["seconds"])
    try:
        if key not in compiled:
            compiled[key] = _environment(job.get("date", "")).from_string(templates[job["template"]])
        text = _render(compiled[key], context, limits["characters"])
        return {"text": text, "heard": list(_HEARD)}
    except (_Limit, MemoryError, RecursionError, OverflowError) as error:
        return {"limit": str(error)[:200] or type(error).__name__}
    except Exception as error:  # noqa: BLE001 - a template may fail in any way; the failure is the answer
        return {"error": f"{type(error).__name__}: {error}"[:300]}
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _hearing(message: dict[str, Any]) -> dict[str, Any]:
    """A message whose words listen; its role is compared by every template and does not."""
    return {key: value if key == "role" else listening(value) for key, value in message.items()}


def main() -> None:
    runtime.str_join = _joined
    request = json.loads(sys.stdin.read())
    limits = request["limits"]
    resource.setrlimit(resource.RLIMIT_AS, (limits["memory"], limits["memory"]))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    signal.signal(signal.SIGALRM, _stop)
    sys.setrecursionlimit(500)
    compiled: dict[Any, Any] = {}
    for job in request["jobs"]:
        answer = _answer(request["templates"], job, limits, compiled)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
        if "limit" in answer:
            break  # one bomb is enough to know; hundreds of them would cost minutes


if __name__ == "__main__":
    main()
