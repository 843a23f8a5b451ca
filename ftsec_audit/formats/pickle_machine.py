"""A bounded symbolic pickle machine: follows every opcode of protocols 0-5 and executes nothing.

The machine keeps the stack, the marks and the memo as CPython's unpickler does (Lib/pickle.py,
Modules/_pickle.c), but where the unpickler would import it makes a `Global`, where it would call it
makes a `Call`. It goes on after errors that stop the unpickler (an underflow, an unset memo), because
what was called before the error has been called. Memory is O(opcodes read): values made by DUP or the
memo are shared, long strings stay in the file.
"""

from __future__ import annotations

from ftsec_audit.files import ByteReader
from ftsec_audit.formats.pickle_opcodes import DONE, STEPS
from ftsec_audit.formats.pickle_state import Cursor, Halt, InlineData, PickleLimits, PickleState
from ftsec_audit.formats.pickle_values import PickleRun, ProblemKind

__all__ = ["InlineData", "PickleLimits", "interpret"]


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
    return _run(PickleState(Cursor(reader, start, stop), limits or PickleLimits(), inline))


def _run(m: PickleState) -> PickleRun:
    try:
        _follow(m)
    except Halt as halt:
        m.problem(halt.kind, halt.detail)
        m.result.value = m.stack[-1] if m.stack else None
    m.result.end = m.cursor.offset
    return m.result


def _follow(m: PickleState) -> None:
    cursor, budget = m.cursor, m.limits.ops
    for op in range(budget):
        if cursor.at >= len(cursor.window) and not cursor.refill():
            m.here = cursor.end
            raise Halt(ProblemKind.NO_STOP)
        at = cursor.at
        m.here = here = cursor.base + at
        m.result.ops = op + 1
        step = STEPS[cursor.window[at]]
        if step is None:
            raise Halt(ProblemKind.UNKNOWN_OPCODE, f"0x{cursor.window[at]:02x}")
        cursor.at = at + 1
        if step(m) is DONE:
            return
        if 0 <= m.frame_end < cursor.base + cursor.at:
            if here < m.frame_end:
                m.problem(ProblemKind.FRAME_STRADDLED)
            m.frame_end = -1
    raise Halt(ProblemKind.OPERATIONS, f"{budget} opcodes")
