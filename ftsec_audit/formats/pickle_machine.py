"""A bounded symbolic pickle machine: follows every opcode of protocols 0-5 and executes nothing.

The machine keeps the stack, the marks and the memo as CPython's unpickler does (Lib/pickle.py,
Modules/_pickle.c), but where the unpickler would import it makes a `Global`, where it would call it
makes a `Call`. It goes on after errors that stop the unpickler (an underflow, an unset memo), because
what was called before the error has been called. Memory is O(opcodes read): values made by DUP or the
memo are shared, long strings stay in the file.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

from ftsec_audit.files import ByteReader
from ftsec_audit.formats.pickle_values import (
    Blob,
    Build,
    Call,
    Computed,
    Extension,
    Global,
    Operand,
    Persistent,
    PickledDict,
    PickledSet,
    PickleRun,
    Problem,
    ProblemKind,
    Reference,
    Unknown,
)

_WINDOW = 1 << 18
_HIGHEST_PROTOCOL = 5
_HOSTILE_TEXT = "surrogatepass"


@dataclass(frozen=True, kw_only=True)
class PickleLimits:
    """How much of a stream is followed."""

    ops: int = 4_000_000
    marks: int = 10_000
    """Nesting of MARK; CPython's own pickler gives up near 1,000."""
    held_bytes: int = 64 << 20
    """Total length of strings held in memory; later ones become a `Blob`."""
    string_bytes: int = 1 << 20
    """A longer string or byte string becomes a `Blob`."""
    line_bytes: int = 1 << 20
    """A longer text operand of protocol 0 is a bad operand."""
    digits: int = 4300
    """CPython's own limit on decimal integers."""
    memo_slack: int = 1 << 16
    """How far a memo index may run ahead of the opcodes read; the C unpickler allocates up to it."""
    problems: int = 256
    """Problems recorded; the first ones are the telling ones."""


InlineData = Callable[[Call, ByteReader, int, int], int]
"""Given the call just built, the reader, the offset after BUILD and the end: where the stream goes on.

joblib writes the bytes of an array straight into the stream behind its wrapper object."""


def interpret(
    reader: ByteReader,
    start: int = 0,
    end: int | None = None,
    *,
    limits: PickleLimits | None = None,
    inline: InlineData | None = None,
) -> PickleRun:
    """Follow one pickle stream that begins at `start`; raises nothing but SourceError.

    What is wrong with the stream is in `PickleRun.problems`; `PickleRun.end` tells where the next
    stream may begin.
    """
    stop = reader.size if end is None else min(end, reader.size)
    return _Machine(_Cursor(reader, start, stop), limits or PickleLimits(), inline).run()


class _Halt(Exception):
    """Reading cannot go on; carries the problem."""

    def __init__(self, kind: ProblemKind, detail: str = "") -> None:
        self.kind = kind
        self.detail = detail


class _Cursor:
    """A forward reader with a small window over the file."""

    def __init__(self, reader: ByteReader, start: int, end: int) -> None:
        self.reader = reader
        self.end = end
        self.base = start  # file offset of window[0]
        self.window = b""
        self.at = 0

    @property
    def offset(self) -> int:
        return self.base + self.at

    def seek(self, offset: int) -> None:
        if self.base <= offset <= self.base + len(self.window):
            self.at = offset - self.base
        else:
            self.base, self.window, self.at = offset, b"", 0

    def take(self, count: int) -> bytes:
        stop = self.at + count
        if stop > len(self.window):
            self._fill(count)
            stop = count
        piece = self.window[self.at : stop]
        self.at = stop
        return piece

    def _fill(self, count: int) -> None:
        offset = self.offset
        if count > self.end - offset:
            raise _Halt(ProblemKind.TRUNCATED, f"{count} bytes wanted, {max(0, self.end - offset)} left")
        length = min(max(count, _WINDOW), self.end - offset)
        self.base, self.at, self.window = offset, 0, self.reader.read_at(offset, length)

    def line(self, limit: int) -> bytes:
        """The text up to the next newline, without it."""
        found = self.window.find(b"\n", self.at)
        if found < 0:
            offset = self.offset
            self.base, self.at = offset, 0
            self.window = self.reader.read_at(offset, max(0, min(limit + 1, self.end - offset)))
            found = self.window.find(b"\n")
            if found < 0:
                raise _Halt(ProblemKind.TRUNCATED, "a text operand has no end")
        piece = self.window[self.at : found]
        self.at = found + 1
        return piece


class _Machine:
    def __init__(self, cursor: _Cursor, limits: PickleLimits, inline: InlineData | None) -> None:
        self.cursor = cursor
        self.limits = limits
        self.inline = inline
        self.stack: list[object] = []
        self.below: list[list[object]] = []  # the stacks under each open mark
        self.memo: dict[int, object] = {}
        self.held = 0
        self.here = cursor.offset  # where the current opcode begins
        self.frame_end = -1
        self.globals: dict[tuple[str, str], Global] = {}
        self.result = PickleRun(start=cursor.offset)

    def run(self) -> PickleRun:
        try:
            self._loop()
        except _Halt as halt:
            self.problem(halt.kind, halt.detail)
            self.result.value = self.stack[-1] if self.stack else None
        self.result.end = self.cursor.offset
        return self.result

    def _loop(self) -> None:
        cursor, budget = self.cursor, self.limits.ops
        for op in range(budget):
            self.here = cursor.offset
            if self.here >= cursor.end:
                raise _Halt(ProblemKind.NO_STOP)
            code = cursor.take(1)[0]
            step = _STEPS[code]
            if step is None:
                cursor.seek(self.here)
                raise _Halt(ProblemKind.UNKNOWN_OPCODE, f"0x{code:02x}")
            self.result.ops = op + 1
            if step(self) is _DONE:
                return
            if 0 <= self.frame_end < cursor.offset:
                if self.here < self.frame_end:
                    self.problem(ProblemKind.FRAME_STRADDLED)
                self.frame_end = -1
        raise _Halt(ProblemKind.OPERATIONS, f"{budget} opcodes")

    # what every opcode needs

    def problem(self, kind: ProblemKind, detail: str = "") -> None:
        if len(self.result.problems) < self.limits.problems:
            self.result.problems.append(Problem(kind, self.here, detail))

    def pop(self) -> object:
        if self.stack:
            return self.stack.pop()
        self.problem(ProblemKind.UNDERFLOW)
        return Unknown("nothing was on the stack")

    def top(self) -> object:
        if self.stack:
            return self.stack[-1]
        self.problem(ProblemKind.UNDERFLOW)
        missing = Unknown("nothing was on the stack")
        self.stack.append(missing)
        return missing

    def pop_mark(self) -> list[object]:
        items = self.stack
        if self.below:
            self.stack = self.below.pop()
        else:
            self.problem(ProblemKind.NO_MARK)
            self.stack = []
        return items

    def unsigned(self, width: int) -> int:
        return int.from_bytes(self.cursor.take(width), "little")

    def line(self) -> bytes:
        return self.cursor.line(self.limits.line_bytes)

    def number(self, text: bytes) -> int:
        try:
            return int(text)
        except ValueError:
            raise _Halt(ProblemKind.BAD_OPERAND, "not a decimal number") from None

    def refer(self, target: Global | Computed | Extension, opcode: str) -> None:
        key: tuple[object, object]
        if isinstance(target, Global):
            key = (target.module, target.name)
        elif isinstance(target, Extension):
            key = ("copyreg extension", target.code)
        else:
            key = ("computed", self.here)
        known = self.result.references.get(key)
        if known is None:
            self.result.references[key] = Reference(target, opcode, self.here)
        else:
            known.count += 1

    def named(self, module: str, name: str, opcode: str) -> Global:
        target = self.globals.setdefault((module, name), Global(module, name))
        self.refer(target, opcode)
        return target

    def call(self, function: object, args: object, opcode: str, kwargs: object = None) -> None:
        made = Call(function, args, opcode, self.here, kwargs)
        self.result.calls.append(made)
        self.stack.append(made)

    def claim(self, length: int) -> None:
        """Refuse an operand longer than what is left of the file, before anything is allocated."""
        if length < 0:
            raise _Halt(ProblemKind.BAD_OPERAND, f"negative length {length}")
        left = self.cursor.end - self.cursor.offset
        if length > left:
            kind = ProblemKind.HUGE_OPERAND if length > left + (1 << 28) else ProblemKind.TRUNCATED
            raise _Halt(kind, f"{length} bytes claimed, {left} left")

    def hold(self, length: int, kind: str) -> bytes | Blob:
        """The next `length` bytes, or their place when they are too many to hold."""
        self.claim(length)
        offset = self.cursor.offset
        if kind != "int":
            self.result.operands.append(Operand(offset, length, kind))
        if length > self.limits.string_bytes or self.held + length > self.limits.held_bytes:
            self.cursor.seek(offset + length)
            return Blob(offset, length, kind)
        self.held += length
        return self.cursor.take(length)

    def push_text(self, length: int, encoding: str = "utf-8") -> None:
        piece = self.hold(length, "str")
        self.stack.append(piece if isinstance(piece, Blob) else _decode(piece, encoding))

    def push_integer(self, length: int) -> None:
        piece = self.hold(length, "int")
        self.stack.append(piece if isinstance(piece, Blob) else int.from_bytes(piece, "little", signed=True))

    def put(self, index: int) -> None:
        if index < 0 or index > self.result.ops + self.limits.memo_slack:
            self.problem(ProblemKind.MEMO_INDEX, str(index))
        value = self.top()
        if index in self.memo and self.memo[index] is not value:
            self.problem(ProblemKind.MEMO_OVERWRITTEN, str(index))
        self.memo[index] = value

    def get(self, index: int) -> None:
        if index not in self.memo:
            self.problem(ProblemKind.UNSET_MEMO, str(index))
            self.stack.append(Unknown("an unset memo entry"))
            return
        self.stack.append(self.memo[index])

    # opcodes

    def op_proto(self) -> None:
        protocol = self.cursor.take(1)[0]
        if self.here != self.result.start:
            self.problem(ProblemKind.REPEATED_PROTO, str(protocol))
        if protocol > _HIGHEST_PROTOCOL:
            self.problem(ProblemKind.BAD_PROTOCOL, str(protocol))
        self.result.protocol = protocol

    def op_frame(self) -> None:
        length = self.unsigned(8)
        if self.cursor.offset <= self.frame_end:
            self.problem(ProblemKind.FRAME_NESTED)
        left = self.cursor.end - self.cursor.offset
        if length > left:
            # The unpickler stops here; what follows is read on so that it can be judged.
            kind = ProblemKind.HUGE_OPERAND if length > left + (1 << 28) else ProblemKind.TRUNCATED
            self.problem(kind, f"a frame of {length} bytes, {left} left")
        else:
            self.frame_end = self.cursor.offset + length

    def op_stop(self) -> object:
        if len(self.stack) != 1 or self.below:
            extra = len(self.stack) - 1 + sum(map(len, self.below))
            kind = ProblemKind.LEFT_ON_STACK if self.stack else ProblemKind.UNDERFLOW
            self.problem(kind, f"{extra} values" if extra > 0 else "")
        self.result.value = self.stack[-1] if self.stack else None
        return _DONE

    def op_mark(self) -> None:
        if len(self.below) >= self.limits.marks:
            raise _Halt(ProblemKind.DEEP_MARKS, f"{self.limits.marks} levels")
        self.below.append(self.stack)
        self.stack = []

    def op_pop(self) -> None:
        if self.stack:
            self.stack.pop()
        elif self.below:
            self.stack = self.below.pop()
        else:
            self.problem(ProblemKind.UNDERFLOW)

    def op_dup(self) -> None:
        self.stack.append(self.top())

    def op_int(self) -> None:
        text = self.line().strip()
        if text in (b"00", b"01"):
            self.stack.append(text == b"01")
        else:
            self.push_decimal(text)

    def op_long(self) -> None:
        self.push_decimal(self.line().strip().rstrip(b"L"))

    def push_decimal(self, text: bytes) -> None:
        if len(text) > self.limits.digits:
            self.problem(ProblemKind.LONG_DIGITS, f"{len(text)} digits")
            self.stack.append(Blob(self.here + 1, len(text), "int"))
            return
        self.stack.append(self.number(text))

    def op_float(self) -> None:
        text = self.line()
        try:
            self.stack.append(float(text))
        except ValueError:
            raise _Halt(ProblemKind.BAD_OPERAND, "not a number") from None

    def op_string(self) -> None:
        text = self.line().strip()
        self.result.operands.append(Operand(self.here + 1, len(text), "str"))
        if len(text) < 2 or text[:1] != text[-1:] or text[:1] not in b"'\"":
            raise _Halt(ProblemKind.BAD_OPERAND, "a string without quotes")
        self.held += len(text)
        self.stack.append(_decode(text[1:-1], "unicode_escape"))

    def op_unicode(self) -> None:
        text = self.line()
        self.result.operands.append(Operand(self.here + 1, len(text), "str"))
        self.held += len(text)
        self.stack.append(_decode(text, "raw_unicode_escape"))

    def op_bytearray(self, kind: str = "bytes") -> None:
        self.stack.append(self.hold(self.unsigned(8), kind))

    def op_next_buffer(self) -> None:
        self.stack.append(Unknown("an out-of-band buffer"))

    def op_list(self) -> None:
        items = self.pop_mark()
        self.stack.append(items)

    def op_tuple(self) -> None:
        items = tuple(self.pop_mark())
        self.stack.append(items)

    def op_tuple1(self) -> None:
        self.stack.append((self.pop(),))

    def op_tuple2(self) -> None:
        second, first = self.pop(), self.pop()
        self.stack.append((first, second))

    def op_tuple3(self) -> None:
        third, second, first = self.pop(), self.pop(), self.pop()
        self.stack.append((first, second, third))

    def op_dict(self) -> None:
        items = self.pop_mark()
        self.stack.append(PickledDict(self._pairs(items)))

    def op_frozenset(self) -> None:
        items = self.pop_mark()
        self.stack.append(PickledSet(items))

    def _pairs(self, items: list[object]) -> list[tuple[object, object]]:
        if len(items) % 2:
            self.problem(ProblemKind.UNDERFLOW, "an odd number of keys and values")
            items = [*items, Unknown("a missing value")]
        return list(zip(items[::2], items[1::2], strict=True))

    def op_append(self) -> None:
        self._extend([self.pop()])

    def op_appends(self) -> None:
        self._extend(self.pop_mark())

    def _extend(self, items: list[object]) -> None:
        target = self.top()
        if isinstance(target, list):
            target.extend(items)
        elif isinstance(target, (Call, PickledSet)):
            target.items.extend(items)
        else:
            self.problem(ProblemKind.ODD_TARGET, type(target).__name__)

    def op_setitem(self) -> None:
        value, key = self.pop(), self.pop()
        self._assign([key, value])

    def op_setitems(self) -> None:
        self._assign(self.pop_mark())

    def _assign(self, items: list[object]) -> None:
        target = self.top()
        if isinstance(target, (PickledDict, Call)):
            target.pairs.extend(self._pairs(items))
        else:
            self.problem(ProblemKind.ODD_TARGET, type(target).__name__)

    def op_put(self) -> None:
        self.put(self.number(self.line()))

    def op_get(self) -> None:
        self.get(self.number(self.line()))

    def op_memoize(self) -> None:
        self.put(len(self.memo))

    def op_global(self) -> None:
        module, name = (_decode(self.line(), "utf-8") for _ in range(2))
        self.stack.append(self.named(module, name, "GLOBAL"))

    def op_stack_global(self) -> None:
        name, module = self.pop(), self.pop()
        if isinstance(module, str) and isinstance(name, str):
            self.stack.append(self.named(module, name, "STACK_GLOBAL"))
            return
        target = Computed(module, name)
        self.refer(target, "STACK_GLOBAL")
        self.stack.append(target)

    def extension(self, width: int) -> None:
        target = Extension(self.unsigned(width))
        self.refer(target, f"EXT{width}")
        self.stack.append(target)

    def op_reduce(self) -> None:
        args, function = self.pop(), self.pop()
        self.call(function, args, "REDUCE")

    def op_newobj(self) -> None:
        args, function = self.pop(), self.pop()
        self.call(function, args, "NEWOBJ")

    def op_newobj_ex(self) -> None:
        kwargs, args, function = self.pop(), self.pop(), self.pop()
        self.call(function, args, "NEWOBJ_EX", kwargs)

    def op_inst(self) -> None:
        module, name = (_decode(self.line(), "utf-8") for _ in range(2))
        args = tuple(self.pop_mark())
        self.call(self.named(module, name, "INST"), args, "INST")

    def op_obj(self) -> None:
        items = self.pop_mark()
        if not items:
            self.problem(ProblemKind.UNDERFLOW, "OBJ without a class")
            items = [Unknown("no class")]
        self.call(items[0], tuple(items[1:]), "OBJ")

    def op_build(self) -> None:
        state = self.pop()
        target = self.top()
        self.result.builds.append(Build(target, state, self.here))
        if isinstance(target, Call):
            target.states.append(state)
            if self.inline is not None:
                cursor = self.cursor
                onward = self.inline(target, cursor.reader, cursor.offset, cursor.end)
                if onward > cursor.end:
                    raise _Halt(ProblemKind.TRUNCATED, f"an array of {onward - cursor.offset} bytes")
                cursor.seek(onward)

    def persistent(self, pid: object) -> None:
        value = Persistent(pid, self.here)
        self.result.persistent.append(value)
        self.stack.append(value)


def _decode(text: bytes, encoding: str) -> str:
    """Text as the unpickler reads it; bytes it would refuse are kept visible instead of failing."""
    try:
        return text.decode(encoding, _HOSTILE_TEXT if encoding == "utf-8" else "strict")
    except UnicodeDecodeError:
        return text.decode("latin-1")


_DONE = object()
_Step = Callable[[_Machine], object]


def _steps() -> list[_Step | None]:
    """Opcode byte → what it does."""
    m = _Machine
    named: dict[bytes, _Step] = {
        b"\x80": m.op_proto, b"\x95": m.op_frame, b".": m.op_stop, b"(": m.op_mark, b"0": m.op_pop,
        b"1": lambda s: s.pop_mark() and None, b"2": m.op_dup,
        b"N": lambda s: s.stack.append(None),
        b"\x88": lambda s: s.stack.append(True),
        b"\x89": lambda s: s.stack.append(False),
        b"I": m.op_int, b"L": m.op_long, b"F": m.op_float,
        b"J": lambda s: s.stack.append(int.from_bytes(s.cursor.take(4), "little", signed=True)),
        b"K": lambda s: s.stack.append(s.cursor.take(1)[0]),
        b"M": lambda s: s.stack.append(s.unsigned(2)),
        b"\x8a": lambda s: s.push_integer(s.unsigned(1)),
        b"\x8b": lambda s: s.push_integer(int.from_bytes(s.cursor.take(4), "little", signed=True)),
        b"G": lambda s: s.stack.append(struct.unpack(">d", s.cursor.take(8))[0]),
        b"S": m.op_string, b"V": m.op_unicode,
        b"T": lambda s: s.push_text(int.from_bytes(s.cursor.take(4), "little", signed=True), "latin-1"),
        b"U": lambda s: s.push_text(s.unsigned(1), "latin-1"),
        b"X": lambda s: s.push_text(s.unsigned(4)),
        b"\x8c": lambda s: s.push_text(s.unsigned(1)),
        b"\x8d": lambda s: s.push_text(s.unsigned(8)),
        b"B": lambda s: s.stack.append(s.hold(s.unsigned(4), "bytes")),
        b"C": lambda s: s.stack.append(s.hold(s.unsigned(1), "bytes")),
        b"\x8e": lambda s: s.stack.append(s.hold(s.unsigned(8), "bytes")),
        b"\x96": m.op_bytearray, b"\x97": m.op_next_buffer, b"\x98": lambda s: s.top() and None,
        b"]": lambda s: s.stack.append([]), b"a": m.op_append, b"e": m.op_appends, b"l": m.op_list,
        b")": lambda s: s.stack.append(()), b"t": m.op_tuple,
        b"\x85": m.op_tuple1, b"\x86": m.op_tuple2, b"\x87": m.op_tuple3,
        b"}": lambda s: s.stack.append(PickledDict()), b"d": m.op_dict,
        b"s": m.op_setitem, b"u": m.op_setitems,
        b"\x8f": lambda s: s.stack.append(PickledSet()), b"\x90": m.op_appends, b"\x91": m.op_frozenset,
        b"p": m.op_put, b"q": lambda s: s.put(s.unsigned(1)), b"r": lambda s: s.put(s.unsigned(4)),
        b"g": m.op_get, b"h": lambda s: s.get(s.unsigned(1)), b"j": lambda s: s.get(s.unsigned(4)),
        b"\x94": m.op_memoize,
        b"c": m.op_global, b"\x93": m.op_stack_global,
        b"\x82": lambda s: s.extension(1), b"\x83": lambda s: s.extension(2),
        b"\x84": lambda s: s.extension(4),
        b"R": m.op_reduce, b"b": m.op_build, b"i": m.op_inst, b"o": m.op_obj,
        b"\x81": m.op_newobj, b"\x92": m.op_newobj_ex,
        b"P": lambda s: s.persistent(_decode(s.line(), "latin-1")), b"Q": lambda s: s.persistent(s.pop()),
    }  # fmt: skip
    table: list[_Step | None] = [None] * 256
    for code, step in named.items():
        table[code[0]] = step
    return table


_STEPS = _steps()
