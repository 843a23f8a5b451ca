"""The state of a symbolic unpickler: cursor, stack, marks, memo, and what is done to them within limits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from ftsec_audit.files import ByteReader
from ftsec_audit.formats.pickle_values import (
    Blob,
    Call,
    Computed,
    Extension,
    Global,
    Operand,
    Persistent,
    PickleRun,
    Problem,
    ProblemKind,
    Reference,
    Unknown,
)

_WINDOW = 1 << 18
_ABSURD = 1 << 28  # a length this far beyond the end is a lie, not a cut


@dataclass(frozen=True, kw_only=True)
class PickleLimits:
    """How much of a stream is followed."""

    ops: int = 1_000_000
    """About two seconds; an optimizer state of a 7B model has some 10,000."""
    marks: int = 10_000
    """Nesting of MARK; CPython's own pickler gives up near 1,000."""
    held_bytes: int = 64 << 20
    """Total length of strings held in memory; later ones become a `Blob`."""
    string_bytes: int = 1 << 20
    """A longer string or byte string becomes a `Blob`."""
    operand_bytes: int = 16
    """Shorter strings are not noted as places that could hide a stream: no payload fits."""
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


class Halt(Exception):
    """Reading cannot go on; carries the problem."""

    def __init__(self, kind: ProblemKind, detail: str = "") -> None:
        self.kind = kind
        self.detail = detail


class Cursor:
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

    def refill(self) -> bool:
        """Make the next byte available; False at the end."""
        if self.offset >= self.end:
            return False
        self._fill(1)
        return True

    def _fill(self, count: int) -> None:
        offset = self.offset
        if count > self.end - offset:
            raise Halt(ProblemKind.TRUNCATED, f"{count} bytes wanted, {max(0, self.end - offset)} left")
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
                raise Halt(ProblemKind.TRUNCATED, "a text operand has no end")
        piece = self.window[self.at : found]
        self.at = found + 1
        return piece


class PickleState:
    def __init__(self, cursor: Cursor, limits: PickleLimits, inline: InlineData | None) -> None:
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

    def text_line(self) -> bytes:
        """A line that is a string, noted as a place that could hide a stream."""
        text = self.line()
        self.held += len(text)
        if len(text) >= self.limits.operand_bytes:
            self.result.operands.append(Operand(self.here + 1, len(text), "str"))
        return text

    def number(self, text: bytes) -> int:
        try:
            return int(text)
        except ValueError:
            raise Halt(ProblemKind.BAD_OPERAND, "not a decimal number") from None

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

    def refuse(self, length: int) -> NoReturn:
        """An operand longer than what is left of the file is refused before anything is allocated."""
        if length < 0:
            raise Halt(ProblemKind.BAD_OPERAND, f"negative length {length}")
        left = self.cursor.end - self.cursor.offset
        raise Halt(overrun(length, left), f"{length} bytes claimed, {left} left")

    def hold(self, length: int, kind: str) -> bytes | Blob:
        """The next `length` bytes, or their place when they are too many to hold."""
        offset = self.cursor.offset
        if length < 0 or length > self.cursor.end - offset:
            self.refuse(length)
        if length >= self.limits.operand_bytes and kind != "int":
            self.result.operands.append(Operand(offset, length, kind))
        if length > self.limits.string_bytes or self.held + length > self.limits.held_bytes:
            self.cursor.seek(offset + length)
            return Blob(offset, length, kind)
        self.held += length
        return self.cursor.take(length)

    def push_text(self, length: int, encoding: str = "utf-8") -> None:
        piece = self.hold(length, "str")
        self.stack.append(piece if isinstance(piece, Blob) else decode(piece, encoding))

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

    def persistent(self, pid: object) -> None:
        value = Persistent(pid, self.here)
        self.result.persistent.append(value)
        self.stack.append(value)


def decode(text: bytes, encoding: str) -> str:
    """Text as the unpickler reads it; bytes it would refuse are kept visible instead of failing."""
    try:
        return text.decode(encoding, "surrogatepass" if encoding == "utf-8" else "strict")
    except UnicodeDecodeError:
        return text.decode("latin-1")


def overrun(length: int, left: int) -> ProblemKind:
    """How to call an operand of `length` bytes where only `left` remain: a lie or a cut."""
    return ProblemKind.HUGE_OPERAND if length > left + _ABSURD else ProblemKind.TRUNCATED
