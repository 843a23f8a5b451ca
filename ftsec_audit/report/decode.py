"""JSON values back into the frozen dataclasses of `ftsec_audit.types`, strictly.

Every field that has no default must be there, no other key may be, and nothing is converted: a number
is no string, `true` is no number. The one exception mirrors what JSON cannot say: where a number is
required, `null` is NaN.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from enum import Enum
from functools import cache
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from ftsec_audit.errors import UsageError

T = TypeVar("T")

_TOO_LARGE = 1 << 63


def decode(data: object, type_: type[T], path: str = "") -> T:
    """`data` as a `type_`; raises UsageError naming the path of what does not fit."""
    value: T = _value(data, type_, path)
    return value


def _value(data: object, hint: Any, path: str) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return data
    if origin in (Union, UnionType):
        return _union(data, arguments, path)
    if origin is tuple:
        return _tuple(data, arguments, path)
    if origin is list:
        items = _expect(data, list, path)
        return [_value(item, arguments[0], f"{path}[{i}]") for i, item in enumerate(items)]
    if origin is dict:
        members = _expect(data, dict, path)
        return {key: _value(item, arguments[1], _member(path, key)) for key, item in members.items()}
    if is_dataclass(hint):
        return _dataclass(data, hint, path)
    if issubclass(hint, tuple):  # a tuple with a name of its own
        return hint(_tuple(data, get_args(hint.__orig_bases__[0]), path))
    if issubclass(hint, Enum):
        return _enum(data, hint, path)
    if hint is float:
        return _float(data, path)
    if hint is int and abs(_expect(data, int, path)) >= _TOO_LARGE:
        raise _misfit("the number is too large", path)
    return _expect(data, hint, path)


def _dataclass(data: object, hint: Any, path: str) -> Any:
    members = _expect(data, dict, path)
    known = _fields(hint)
    if unknown := sorted(members.keys() - known.keys()):
        raise _misfit(f"unknown key {_quoted(unknown[0])}", path)
    values = {}
    for name, (field, type_) in known.items():
        if name in members:
            values[name] = _value(members[name], type_, _member(path, name))
        elif field.default is MISSING and field.default_factory is MISSING:
            raise _misfit(f"{name} is missing", path)
    return hint(**values)


@cache
def _fields(hint: Any) -> Mapping[str, tuple[Field[Any], Any]]:
    types = get_type_hints(hint)
    return {field.name: (field, types[field.name]) for field in fields(hint)}


def _union(data: object, arguments: tuple[Any, ...], path: str) -> Any:
    """`X | None`, or `float | list[float]`: the unions there are; told apart by the shape of the data."""
    if data is None and NoneType in arguments:
        return None
    wants_list = isinstance(data, list)
    for argument in arguments:
        if argument is not NoneType and wants_list == (get_origin(argument) in (list, tuple)):
            return _value(data, argument, path)
    return _value(data, arguments[0], path)


def _tuple(data: object, arguments: tuple[Any, ...], path: str) -> tuple[Any, ...]:
    items = _expect(data, list, path)
    if arguments[-1] is Ellipsis:
        return tuple(_value(item, arguments[0], f"{path}[{i}]") for i, item in enumerate(items))
    if len(items) != len(arguments):
        raise _misfit(f"needs {len(arguments)} entries and has {len(items)}", path)
    return tuple(
        _value(item, hint, f"{path}[{i}]")
        for i, (item, hint) in enumerate(zip(items, arguments, strict=True))
    )


def _enum(data: object, hint: type[Enum], path: str) -> Enum:
    try:
        return hint(_expect(data, str, path))
    except ValueError:
        choices = ", ".join(str(member.value) for member in hint)
        raise _misfit(f"{_quoted(data)} is none of {choices}", path) from None


def _float(data: object, path: str) -> float:
    if data is None:
        return math.nan
    if isinstance(data, bool) or not isinstance(data, (int, float)):
        raise _misfit(f"needs a number, not {_quoted(data)}", path)
    try:
        finite = math.isfinite(data)
    except OverflowError:
        finite = False
    if not finite:
        raise _misfit("the number is too large", path)
    return data  # as it is written: 3 stays 3, so that the document can be written again byte by byte


def _expect(data: object, hint: type[T], path: str) -> T:
    if not isinstance(data, hint) or (isinstance(data, bool) and hint is not bool):
        raise _misfit(f"needs {_KINDS[hint]}, not {_quoted(data)}", path)
    return data


_KINDS: Mapping[type, str] = {
    bool: "true or false",
    dict: "an object",
    int: "an integer",
    list: "an array",
    str: "a string",
}


def _quoted(data: object) -> str:
    return ascii(data)[:60]


def _member(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _misfit(what: str, path: str) -> UsageError:
    return UsageError(what, where=path or "the document")
