"""Which imports a pickle may make: default deny on the exact (module, name) pair.

The verdict is a function of the file and of `pickle_allowed.json` alone; it never looks at what is
installed. A few functions that are harmless only in one form are *guarded*: they may be called in that
form and may appear nowhere else, because a callable handed to another callable can be called with
anything. Names with a dot are always denied: the unpickler resolves them attribute by attribute, so an
allowed module can lead anywhere (`numpy` + `__builtins__.eval`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from importlib.resources import files

from ftsec_audit.formats.pickle_values import (
    Blob,
    Build,
    Call,
    Computed,
    Extension,
    Global,
    PickledDict,
    PickleRun,
    Reference,
    children,
)

_INIT_OPCODES = frozenset({"REDUCE", "INST", "OBJ"})
_STATE_HOOKS = frozenset(
    f"__{name}__"
    for name in (
        *("setstate", "class", "call", "getattr", "getattribute", "setattr", "reduce", "reduce_ex"),
        *("del", "init", "new", "get", "set"),
    )
)
_LATIN = frozenset({"latin1", "latin-1"})


class Ground(StrEnum):
    """Why something is denied."""

    DANGEROUS = "known to execute code or reach outside"
    UNLISTED = "not on the allow list"
    DOTTED = "a dotted name, resolved attribute by attribute"
    COMPUTED = "a name computed while loading"
    EXTENSION = "an extension code, resolved by whatever the host has registered"
    MISUSED = "allowed in one form only, and this is another"
    CONSTRUCTED = "allowed as restored state, but here its constructor is called"
    CALLABLE = "a call of something that is not a plain imported name"
    CLASS_STATE = "state assigned to something that is not an instance made by the stream"
    HOOK = "an attribute that Python itself calls is replaced"


@dataclass(frozen=True, kw_only=True)
class Denial:
    """One thing a stream does that the policy does not allow."""

    ground: Ground
    target: str
    """The name as the stream spells it: hostile."""
    effect: str
    """What it would do when loaded."""
    offset: int
    opcode: str
    arguments: str = ""
    """A bounded rendering of the literal arguments of the first call: hostile."""


@dataclass(frozen=True)
class _Lists:
    allowed: dict[tuple[str, str], str]  # pair → kind of its group
    guarded: dict[tuple[str, str], str]  # pair → form
    aliases: dict[str, str]
    dangerous_names: dict[str, str]
    dangerous_modules: dict[str, str]


@cache
def _lists() -> _Lists:
    folder = files("ftsec_audit.formats")
    allowed = json.loads((folder / "pickle_allowed.json").read_text("utf-8"))
    dangerous = json.loads((folder / "pickle_dangerous.json").read_text("utf-8"))
    aliases: dict[str, str] = allowed["aliases"]
    pairs = {
        (aliases.get(module, module), name): group["kind"]
        for group in allowed["groups"]
        for module, names in group["names"].items()
        for name in names
    }
    guarded = {(entry["module"], entry["name"]): entry["when"] for entry in allowed["guarded"]}
    return _Lists(pairs, guarded, aliases, dangerous["names"], dangerous["modules"])


def _pair(target: Global) -> tuple[str, str]:
    return _lists().aliases.get(target.module, target.module), target.name


def is_allowed(module: str, name: str) -> bool:
    """Whether the pair may be imported in any form."""
    pair = _pair(Global(module, name))
    return pair in _lists().allowed or pair in _lists().guarded


def is_dangerous(target: Global) -> bool:
    """Whether the name is known to execute code or reach outside."""
    return _known_effect(target) != ""


def denials(run: PickleRun) -> Iterator[Denial]:
    """Everything in a stream that the policy does not allow, in no particular order."""
    first_call = _first_calls(run.calls)
    for reference in run.references.values():
        found = _judge_reference(reference, first_call.get(str(reference.target), ""))
        if found is not None:
            yield found
    for call in run.calls:
        yield from _judge_call(call)
    for build in run.builds:
        yield from _judge_build(build)
    yield from _escaped_guarded(run)


def _judge_reference(reference: Reference, arguments: str) -> Denial | None:
    target = reference.target
    effect = "imports and hands to the stream whatever the name leads to"
    if isinstance(target, Computed):
        ground = Ground.COMPUTED
    elif isinstance(target, Extension):
        ground = Ground.EXTENSION
    else:
        known = _known_effect(target)
        effect = known or effect
        if "." in target.name:
            ground = Ground.DANGEROUS if known else Ground.DOTTED
        elif is_allowed(target.module, target.name):
            return None
        else:
            ground = Ground.DANGEROUS if known else Ground.UNLISTED
    return Denial(
        ground=ground,
        target=_spell(target),
        effect=effect,
        offset=reference.offset,
        opcode=reference.opcode,
        arguments=arguments,
    )


def _known_effect(target: Global) -> str:
    lists = _lists()
    module, name = _pair(target)
    path = f"{module}.{name}"
    while path:
        if path in lists.dangerous_names:
            return lists.dangerous_names[path]
        path = path.rpartition(".")[0]
    while module:
        if module in lists.dangerous_modules:
            return lists.dangerous_modules[module]
        module = module.rpartition(".")[0]
    return ""


def _judge_call(call: Call) -> Iterator[Denial]:
    function = call.function
    if not isinstance(function, Global):
        if not isinstance(function, (Computed, Extension)):  # those are denied where they are pushed
            yield _denied(Ground.CALLABLE, call, "calls the result of another call or an odd value")
        return
    lists, pair = _lists(), _pair(function)
    form = lists.guarded.get(pair)
    if form is not None and not _FORMS[form](call):
        yield _denied(Ground.MISUSED, call, lists.dangerous_names.get(".".join(pair), "converts text"))
    if lists.allowed.get(pair) == "state" and call.opcode in _INIT_OPCODES and not _is_empty(call.args):
        yield _denied(Ground.CONSTRUCTED, call, "runs the constructor with arguments from the file")


def _judge_build(build: Build) -> Iterator[Denial]:
    if isinstance(build.target, (Global, Computed, Extension)):
        yield Denial(
            ground=Ground.CLASS_STATE,
            target=_spell(build.target),
            effect="changes a class, function or module for the whole process",
            offset=build.offset,
            opcode="BUILD",
        )
    for name in _attribute_names(build.state):
        if name in _STATE_HOOKS:
            yield Denial(
                ground=Ground.HOOK,
                target=name,
                effect="makes Python call what the stream chose",
                offset=build.offset,
                opcode="BUILD",
            )


def _attribute_names(state: object) -> Iterator[str]:
    parts = state if isinstance(state, tuple) and len(state) == 2 else (state,)
    for part in parts:
        if isinstance(part, PickledDict):
            yield from (key for key, _ in part.pairs if isinstance(key, str))


def _is_enum_member(call: Call) -> bool:
    args = call.arguments()
    return (
        len(args) == 2
        and isinstance(args[0], Global)
        and _lists().allowed.get(_pair(args[0])) == "enum"
        and isinstance(args[1], str)
        and args[1].isidentifier()
        and not args[1].startswith("_")
    )


def _is_literal_bytes(call: Call) -> bool:
    args = call.arguments()
    return len(args) == 1 and isinstance(args[0], (bytes, Blob))


def _is_literal_latin1(call: Call) -> bool:
    args = call.arguments()
    return len(args) == 2 and isinstance(args[0], (str, Blob)) and args[1] in _LATIN


_FORMS = {
    "enum-member": _is_enum_member,
    "literal-bytes": _is_literal_bytes,
    "literal-latin1": _is_literal_latin1,
}


def _escaped_guarded(run: PickleRun) -> Iterator[Denial]:
    """Guarded names that occur anywhere but as the function of a call."""
    guarded = _lists().guarded
    if not any(isinstance(r.target, Global) and _pair(r.target) in guarded for r in run.references.values()):
        return
    seen: set[int] = set()
    stack: list[object] = [
        run.value,
        *(b.state for b in run.builds),
        *(p.pid for p in run.persistent),
        *run.calls,
    ]
    while stack:
        value = stack.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        for child in children(value):
            if isinstance(child, Global):
                if _pair(child) in guarded and not (isinstance(value, Call) and value.function is child):
                    where = run.references[(child.module, child.name)]
                    yield Denial(
                        ground=Ground.MISUSED,
                        target=_spell(child),
                        effect="is handed on, to be called with anything",
                        offset=where.offset,
                        opcode=where.opcode,
                    )
            elif isinstance(child, (list, tuple, Call)) or type(child).__module__ == PickledDict.__module__:
                stack.append(child)


def _denied(ground: Ground, call: Call, effect: str) -> Denial:
    return Denial(
        ground=ground,
        target=_spell(call.function),
        effect=effect,
        offset=call.offset,
        opcode=call.opcode,
        arguments=render(call.args),
    )


def _first_calls(calls: Iterable[Call]) -> dict[str, str]:
    first: dict[str, str] = {}
    for call in calls:
        if isinstance(call.function, Global):
            name = str(call.function)
            if name not in first:
                first[name] = (
                    "" if is_allowed(call.function.module, call.function.name) else render(call.args)
                )
    return first


def _is_empty(args: object) -> bool:
    return isinstance(args, tuple) and not args


def _spell(target: object) -> str:
    if isinstance(target, Global):
        return f"{target.module}.{target.name}"[:200]
    if isinstance(target, Extension):
        return f"extension {target.code}"
    if isinstance(target, Computed):
        return f"computed({render((target.module, target.name))})"
    return render(target)


def render(value: object, depth: int = 3, width: int = 160) -> str:
    """A bounded one-line rendering of a value, for excerpts."""
    if isinstance(value, (str, bytes)):
        text = repr(value[:width])
    elif isinstance(value, (tuple, list)):
        shown = ", ".join(render(part, depth - 1, width // 2) for part in value[:4]) if depth else "…"
        text = f"({shown}{', …' if len(value) > 4 else ''})"
    elif isinstance(value, Call):
        text = f"{_spell(value.function)}{render(value.args, depth - 1, width // 2)}" if depth else "a call"
    elif isinstance(value, Global):
        text = _spell(value)
    elif value is None or isinstance(value, (bool, float)) or (isinstance(value, int) and value < 1 << 64):
        text = repr(value)
    else:
        text = type(value).__name__
    return text[:width]
