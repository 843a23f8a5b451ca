"""The pickle streams of some content: followed one after another, judged by the policy, searched for more."""

from __future__ import annotations

from ftsec_audit.files import ByteReader
from ftsec_audit.formats import joblib_array
from ftsec_audit.formats.facts import DeniedImport
from ftsec_audit.formats.pickle_bombs import expansion
from ftsec_audit.formats.pickle_machine import interpret
from ftsec_audit.formats.pickle_policy import denials
from ftsec_audit.formats.pickle_search import headerless_stream, hidden_in, is_probable, sweep
from ftsec_audit.formats.pickle_values import (
    BUDGET,
    FATAL,
    Call,
    Global,
    Persistent,
    PickleRun,
    Problem,
    ProblemKind,
)
from ftsec_audit.formats.walk import Place, Walk
from ftsec_audit.types import Severity

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_PADDING = b"\0 \t\r\n"
_PROBE = 1 << 16
_SWEEP = 64 << 20
_NESTED_DECODE = 8 << 20
_NESTING = 2_000
_PARTS = 100_000
_VISITS = 50_000_000
_VISITS_PER_PART = 1_000
_BOMBS = {
    ProblemKind.MEMO_INDEX: "makes the unpickler allocate a memo of that size",
    ProblemKind.HUGE_OPERAND: "makes a loader allocate what the file does not hold",
    ProblemKind.LONG_DIGITS: "takes time quadratic in its digits",
    ProblemKind.DEEP_MARKS: "exhausts memory or the call stack",
}
_STORAGE_TAGS = frozenset({"storage", "reduce_package"})


def read_pickles(walk: Walk, place: Place) -> None:
    """Content that says it is a pickle of protocol 2-5."""
    run = _follow(walk, place, place.reader, 0)
    lies = place.depth == 0 and any(problem.kind in _BOMBS for problem in run.problems)
    if not (lies or is_probable(run)):
        if place.depth == 0 or place.member.endswith(".pkl"):
            walk.unread("not-a-pickle", "begins like a pickle and is none", place.member)
        _read_unknown(walk, place)
        return
    end = _streams(walk, place, run)
    _after_last_stream(walk, place, run, end)


def read_possible_pickle(walk: Walk, place: Place) -> bool:
    """Content without a header that may be a pickle of protocol 0 or 1."""
    probe = headerless_stream(place.reader)
    if probe is None:
        return False
    run = _follow(walk, place, place.reader, 0)
    _streams(walk, place, run)
    return True


def search_bytes(walk: Walk, place: Place, start: int, end: int) -> None:
    """Bytes that belong to nothing, or that could hold anything: report the streams among them."""

    def exhausted(offset: int) -> None:
        walk.unread("search", "too many places look like the start of a pickle", place.member, offset)

    for run in sweep(place.reader, start, min(end, start + _SWEEP), exhausted):
        _judge(walk, place, run)


def _read_unknown(walk: Walk, place: Place) -> None:
    size = place.reader.size
    search_bytes(walk, place, 0, min(size, _SWEEP))


def _follow(walk: Walk, place: Place, reader: ByteReader, start: int) -> PickleRun:
    limits = walk.limits.pickle

    def inline(call: Call, source: ByteReader, offset: int, end: int) -> int:
        return joblib_array.data_end(call, source, offset, end, object_array)

    def object_array(offset: int) -> int:
        nested = interpret(reader, offset, limits=limits, inline=inline)
        _judge(walk, place, nested)
        return nested.end

    return interpret(reader, start, limits=limits, inline=inline)


def _streams(walk: Walk, place: Place, run: PickleRun) -> int:
    """Judge a stream and those that follow it directly; returns where the last one ends."""
    _judge(walk, place, run)
    reader, values = place.reader, [run.value]
    while run.complete and run.end < reader.size:
        if walk.facts.streams > walk.limits.streams:
            walk.unread("streams", f"more than {walk.limits.streams:,} pickle streams", place.member, run.end)
            return reader.size
        start = _skip_padding(reader, run.end)
        if reader.read_at(start, 1) not in _first_bytes(reader, start):
            break
        following = _follow(walk, place, reader, start)
        if not (following.complete and following.ops > 1) and not following.references:
            break
        run = following
        _judge(walk, place, run)
        values.append(run.value)
        if len(values) == 5 and values[0] == _LEGACY_MAGIC:
            return _legacy_storages(walk, place, run)
    return run.end


def _first_bytes(reader: ByteReader, start: int) -> tuple[bytes, ...]:
    return (b"\x80",) if reader.read_at(start, 1) == b"\x80" else (b"c", b"(", b"i", b"]", b"}", b")")


def _skip_padding(reader: ByteReader, at: int) -> int:
    while at < reader.size:
        block = reader.read_at(at, _PROBE)
        rest = block.lstrip(_PADDING)
        if rest:
            return at + len(block) - len(rest)
        at += len(block)
    return at


def _legacy_storages(walk: Walk, place: Place, run: PickleRun) -> int:
    """Behind the five streams of the old torch.save lie raw storages; only their end is searched."""
    size = place.reader.size
    search_bytes(walk, place, max(run.end, size - (1 << 20)), size)
    return size


def _after_last_stream(walk: Walk, place: Place, run: PickleRun, end: int) -> None:
    """Search what follows: a loader that reads several objects, or another reader, may go on there."""
    size = place.reader.size
    if end >= size:
        return
    before = len(walk.facts.pickle_code)
    search_bytes(walk, place, end, size)
    if len(walk.facts.pickle_code) > before or not run.complete:
        return
    if _skip_padding(place.reader, end) < size:
        walk.note(
            walk.facts.pickle_structure,
            "trailing-data",
            f"{size - end:,} bytes follow the last stream",
            Severity.MEDIUM,
            place.member,
            end,
        )


def _judge(walk: Walk, place: Place, run: PickleRun) -> None:
    facts = walk.facts
    facts.streams += 1
    found = sorted(denials(run), key=lambda denial: denial.offset)
    for denial in found[: walk.limits.facts]:
        facts.pickle_code.append(DeniedImport(denial=denial, member=place.member, nested=place.nested))
    for problem in run.problems:
        _judge_problem(walk, place, run, problem, executes=bool(found))
    _judge_persistent(walk, place, run)
    _judge_size(walk, place, run)
    for operand, content in hidden_in(run, place.reader, limit=_NESTED_DECODE):
        walk.into(content, place.inner(f"string at byte {operand.offset}"), place.depth + 1, nested=True)


def _judge_problem(walk: Walk, place: Place, run: PickleRun, problem: Problem, *, executes: bool) -> None:
    facts, kind = walk.facts, problem.kind
    if kind in _BOMBS:
        message = f"{problem}; it {_BOMBS[kind]}"
        walk.note(facts.bombs, kind.name.lower(), message, Severity.HIGH, place.member, problem.offset)
    elif kind in BUDGET:
        walk.unread("opcodes", str(problem), place.member, problem.offset)
        search_bytes(walk, place, run.end, place.reader.size)
    elif kind in FATAL and not executes:
        walk.unread("broken-stream", f"the pickle stream is damaged: {problem}", place.member, problem.offset)
    else:
        detail = "; what precedes the damage is executed all the same" if kind in FATAL else ""
        walk.note(
            facts.pickle_structure,
            kind.name.lower().replace("_", "-"),
            f"{problem}{detail}",
            Severity.HIGH,
            place.member,
            problem.offset,
        )


def _judge_persistent(walk: Walk, place: Place, run: PickleRun) -> None:
    for value in run.persistent:
        if not _is_storage(value):
            walk.note(
                walk.facts.pickle_structure,
                "persistent-id",
                f"a persistent id that is not a torch storage, resolved by the loading program"
                f" (at byte {value.offset})",
                Severity.HIGH,
                place.member,
                value.offset,
            )
            return


def _is_storage(value: Persistent) -> bool:
    pid = value.pid
    if isinstance(pid, tuple) and pid and isinstance(pid[0], str):
        return pid[0] in _STORAGE_TAGS and (len(pid) < 2 or isinstance(pid[1], (Global, Call)))
    return isinstance(pid, str) and pid.isdigit()


def _judge_size(walk: Walk, place: Place, run: PickleRun) -> None:
    """Objects that are small in the file and enormous, or bottomless, to whoever walks over them."""
    roots = [run.value, *run.calls[:_PARTS]]
    size = expansion(roots, max_depth=_NESTING, max_parts=_PARTS)
    if size.depth >= _NESTING:
        message = f"objects nested {_NESTING:,} levels deep or more; printing or comparing them overflows"
        walk.note(walk.facts.bombs, "nesting", message, Severity.HIGH, place.member, run.start)
    if size.visits > _VISITS and size.visits > _VISITS_PER_PART * size.parts:
        message = f"{size.parts:,} parts are shared so that a walk visits {_magnitude(size.visits)}"
        walk.note(walk.facts.bombs, "sharing", message, Severity.HIGH, place.member, run.start)


def _magnitude(number: int) -> str:
    return "more than 10²⁴" if number >= 1 << 80 else f"{number:,}"
