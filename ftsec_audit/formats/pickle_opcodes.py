"""What each of the 68 opcodes of protocols 0-5 does to the state (pickletools documents them)."""

from __future__ import annotations

import struct
from _codecs import escape_decode
from collections.abc import Callable

from ftsec_audit.formats.pickle_state import Halt, PickleState, decode, overrun
from ftsec_audit.formats.pickle_values import (
    Blob,
    Build,
    Call,
    Computed,
    Extension,
    PickledDict,
    PickledSet,
    ProblemKind,
    Unknown,
)

_HIGHEST_PROTOCOL = 5
DONE = object()
"""Returned by STOP."""


def _proto(m: PickleState) -> None:
    protocol = m.cursor.take(1)[0]
    if m.here != m.result.start:
        m.problem(ProblemKind.REPEATED_PROTO, str(protocol))
    if protocol > _HIGHEST_PROTOCOL:
        m.problem(ProblemKind.BAD_PROTOCOL, str(protocol))
    m.result.protocol = protocol


def _frame(m: PickleState) -> None:
    length = m.unsigned(8)
    if m.cursor.offset <= m.frame_end:
        m.problem(ProblemKind.FRAME_NESTED)
    left = m.cursor.end - m.cursor.offset
    if length > left:
        # The unpickler stops here; what follows is read on so that it can be judged.
        m.problem(overrun(length, left), f"a frame of {length} bytes, {left} left")
    else:
        m.frame_end = m.cursor.offset + length


def _stop(m: PickleState) -> object:
    if len(m.stack) != 1 or m.below:
        extra = len(m.stack) - 1 + sum(map(len, m.below))
        kind = ProblemKind.LEFT_ON_STACK if m.stack else ProblemKind.UNDERFLOW
        m.problem(kind, f"{extra} values" if extra > 0 else "")
    m.result.value = m.stack[-1] if m.stack else None
    return DONE


def _mark(m: PickleState) -> None:
    if len(m.below) >= m.limits.marks:
        raise Halt(ProblemKind.DEEP_MARKS, f"{m.limits.marks} levels")
    m.below.append(m.stack)
    m.stack = []


def _pop(m: PickleState) -> None:
    if m.stack:
        m.stack.pop()
    elif m.below:
        m.stack = m.below.pop()
    else:
        m.problem(ProblemKind.UNDERFLOW)


def _dup(m: PickleState) -> None:
    m.stack.append(m.top())


def _int(m: PickleState) -> None:
    text = m.line().strip()
    if text in (b"00", b"01"):
        m.stack.append(text == b"01")
    else:
        _push_decimal(m, text)


def _long(m: PickleState) -> None:
    _push_decimal(m, m.line().strip().rstrip(b"L"))


def _push_decimal(m: PickleState, text: bytes) -> None:
    if len(text) > m.limits.digits:
        m.problem(ProblemKind.LONG_DIGITS, f"{len(text)} digits")
        m.stack.append(Blob(m.here + 1, len(text), "int"))
        return
    m.stack.append(m.number(text))


def _float(m: PickleState) -> None:
    text = m.line()
    try:
        m.stack.append(float(text))
    except ValueError:
        raise Halt(ProblemKind.BAD_OPERAND, "not a number") from None


def _string(m: PickleState) -> None:
    text = m.text_line().strip()
    if len(text) < 2 or text[:1] != text[-1:] or text[:1] not in b"'\"":
        raise Halt(ProblemKind.BAD_OPERAND, "a string without quotes")
    try:
        m.stack.append(escape_decode(text[1:-1])[0].decode("latin-1"))
    except ValueError:
        raise Halt(ProblemKind.BAD_OPERAND, "a broken escape") from None


def _unicode(m: PickleState) -> None:
    m.stack.append(decode(m.text_line(), "raw_unicode_escape"))


def _bytearray(m: PickleState) -> None:
    m.stack.append(m.hold(m.unsigned(8), "bytes"))


def _next_buffer(m: PickleState) -> None:
    m.stack.append(Unknown("an out-of-band buffer"))


def _list(m: PickleState) -> None:
    items = m.pop_mark()
    m.stack.append(items)


def _tuple(m: PickleState) -> None:
    items = tuple(m.pop_mark())
    m.stack.append(items)


def _tuple1(m: PickleState) -> None:
    m.stack.append((m.pop(),))


def _tuple2(m: PickleState) -> None:
    second, first = m.pop(), m.pop()
    m.stack.append((first, second))


def _tuple3(m: PickleState) -> None:
    third, second, first = m.pop(), m.pop(), m.pop()
    m.stack.append((first, second, third))


def _dict(m: PickleState) -> None:
    items = m.pop_mark()
    m.stack.append(PickledDict(_pairs(m, items)))


def _frozenset(m: PickleState) -> None:
    items = m.pop_mark()
    m.stack.append(PickledSet(items))


def _pairs(m: PickleState, items: list[object]) -> list[tuple[object, object]]:
    if len(items) % 2:
        m.problem(ProblemKind.UNDERFLOW, "an odd number of keys and values")
        items = [*items, Unknown("a missing value")]
    return list(zip(items[::2], items[1::2], strict=True))


def _append(m: PickleState) -> None:
    _extend(m, [m.pop()])


def _appends(m: PickleState) -> None:
    _extend(m, m.pop_mark())


def _extend(m: PickleState, items: list[object]) -> None:
    target = m.top()
    if isinstance(target, list):
        target.extend(items)
    elif isinstance(target, (Call, PickledSet)):
        target.items.extend(items)
    else:
        m.problem(ProblemKind.ODD_TARGET, type(target).__name__)


def _setitem(m: PickleState) -> None:
    value, key = m.pop(), m.pop()
    _assign(m, [key, value])


def _setitems(m: PickleState) -> None:
    _assign(m, m.pop_mark())


def _assign(m: PickleState, items: list[object]) -> None:
    target = m.top()
    if isinstance(target, (PickledDict, Call)):
        target.pairs.extend(_pairs(m, items))
    else:
        m.problem(ProblemKind.ODD_TARGET, type(target).__name__)


def _put(m: PickleState) -> None:
    m.put(m.number(m.line()))


def _get(m: PickleState) -> None:
    m.get(m.number(m.line()))


def _memoize(m: PickleState) -> None:
    m.put(len(m.memo))


def _global(m: PickleState) -> None:
    module, name = (decode(m.line(), "utf-8") for _ in range(2))
    m.stack.append(m.named(module, name, "GLOBAL"))


def _stack_global(m: PickleState) -> None:
    name, module = m.pop(), m.pop()
    if isinstance(module, str) and isinstance(name, str):
        m.stack.append(m.named(module, name, "STACK_GLOBAL"))
        return
    target = Computed(module, name)
    m.refer(target, "STACK_GLOBAL")
    m.stack.append(target)


def _extension(m: PickleState, width: int) -> None:
    target = Extension(m.unsigned(width))
    m.refer(target, f"EXT{width}")
    m.stack.append(target)


def _reduce(m: PickleState) -> None:
    args, function = m.pop(), m.pop()
    m.call(function, args, "REDUCE")


def _newobj(m: PickleState) -> None:
    args, function = m.pop(), m.pop()
    m.call(function, args, "NEWOBJ")


def _newobj_ex(m: PickleState) -> None:
    kwargs, args, function = m.pop(), m.pop(), m.pop()
    m.call(function, args, "NEWOBJ_EX", kwargs)


def _inst(m: PickleState) -> None:
    module, name = (decode(m.line(), "utf-8") for _ in range(2))
    args = tuple(m.pop_mark())
    m.call(m.named(module, name, "INST"), args, "INST")


def _obj(m: PickleState) -> None:
    items = m.pop_mark()
    if not items:
        m.problem(ProblemKind.UNDERFLOW, "OBJ without a class")
        items = [Unknown("no class")]
    m.call(items[0], tuple(items[1:]), "OBJ")


def _build(m: PickleState) -> None:
    state = m.pop()
    target = m.top()
    m.result.builds.append(Build(target, state, m.here))
    if isinstance(target, Call):
        target.states.append(state)
        if m.inline is not None:
            cursor = m.cursor
            onward = m.inline(target, cursor.reader, cursor.offset, cursor.end)
            if onward > cursor.end:
                raise Halt(ProblemKind.TRUNCATED, f"an array of {onward - cursor.offset} bytes")
            if onward != cursor.offset:
                cursor.seek(onward)
                m.frame_end = -1  # the pickler closed its frame before it wrote the data


Step = Callable[[PickleState], object]


def _steps() -> list[Step | None]:
    """Opcode byte → what it does."""
    named: dict[bytes, Step] = {
        b"\x80": _proto, b"\x95": _frame, b".": _stop, b"(": _mark, b"0": _pop,
        b"1": lambda s: s.pop_mark() and None, b"2": _dup,
        b"N": lambda s: s.stack.append(None),
        b"\x88": lambda s: s.stack.append(True),
        b"\x89": lambda s: s.stack.append(False),
        b"I": _int, b"L": _long, b"F": _float,
        b"J": lambda s: s.stack.append(int.from_bytes(s.cursor.take(4), "little", signed=True)),
        b"K": lambda s: s.stack.append(s.cursor.take(1)[0]),
        b"M": lambda s: s.stack.append(s.unsigned(2)),
        b"\x8a": lambda s: s.push_integer(s.unsigned(1)),
        b"\x8b": lambda s: s.push_integer(int.from_bytes(s.cursor.take(4), "little", signed=True)),
        b"G": lambda s: s.stack.append(struct.unpack(">d", s.cursor.take(8))[0]),
        b"S": _string, b"V": _unicode,
        b"T": lambda s: s.push_text(int.from_bytes(s.cursor.take(4), "little", signed=True), "latin-1"),
        b"U": lambda s: s.push_text(s.unsigned(1), "latin-1"),
        b"X": lambda s: s.push_text(s.unsigned(4)),
        b"\x8c": lambda s: s.push_text(s.unsigned(1)),
        b"\x8d": lambda s: s.push_text(s.unsigned(8)),
        b"B": lambda s: s.stack.append(s.hold(s.unsigned(4), "bytes")),
        b"C": lambda s: s.stack.append(s.hold(s.unsigned(1), "bytes")),
        b"\x8e": lambda s: s.stack.append(s.hold(s.unsigned(8), "bytes")),
        b"\x96": _bytearray, b"\x97": _next_buffer, b"\x98": lambda s: s.top() and None,
        b"]": lambda s: s.stack.append([]), b"a": _append, b"e": _appends, b"l": _list,
        b")": lambda s: s.stack.append(()), b"t": _tuple,
        b"\x85": _tuple1, b"\x86": _tuple2, b"\x87": _tuple3,
        b"}": lambda s: s.stack.append(PickledDict()), b"d": _dict,
        b"s": _setitem, b"u": _setitems,
        b"\x8f": lambda s: s.stack.append(PickledSet()), b"\x90": _appends, b"\x91": _frozenset,
        b"p": _put, b"q": lambda s: s.put(s.unsigned(1)), b"r": lambda s: s.put(s.unsigned(4)),
        b"g": _get, b"h": lambda s: s.get(s.unsigned(1)), b"j": lambda s: s.get(s.unsigned(4)),
        b"\x94": _memoize,
        b"c": _global, b"\x93": _stack_global,
        b"\x82": lambda s: _extension(s, 1), b"\x83": lambda s: _extension(s, 2),
        b"\x84": lambda s: _extension(s, 4),
        b"R": _reduce, b"b": _build, b"i": _inst, b"o": _obj,
        b"\x81": _newobj, b"\x92": _newobj_ex,
        b"P": lambda s: s.persistent(decode(s.line(), "latin-1")), b"Q": lambda s: s.persistent(s.pop()),
    }  # fmt: skip
    table: list[Step | None] = [None] * 256
    for code, step in named.items():
        table[code[0]] = step
    return table


STEPS = _steps()
