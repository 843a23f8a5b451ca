"""The symbolic pickle machine against what Python's pickler writes and what it never writes."""

from __future__ import annotations

import pickle
import pickletools
import struct
from collections import OrderedDict

import pytest

from ftsec_audit.errors import BudgetExceeded, FormatError
from ftsec_audit.files import MemoryBytes
from ftsec_audit.formats.pickle_machine import interpret
from ftsec_audit.formats.pickle_opcodes import STEPS
from ftsec_audit.formats.pickle_state import PickleLimits
from ftsec_audit.formats.pickle_values import Blob, Call, Global, PickledDict, PickleRun, ProblemKind

CALL = b"cos\nsystem\n(S'echo'\ntR"


def run(data: bytes, **limits: int) -> PickleRun:
    return interpret(MemoryBytes(data), limits=PickleLimits(**limits))


def test_every_opcode_of_the_standard_library_is_known() -> None:
    assert {ord(op.code) for op in pickletools.opcodes} == {n for n, step in enumerate(STEPS) if step}


@pytest.mark.parametrize("protocol", range(6))
def test_ordinary_objects_are_followed_to_stop(protocol: int) -> None:
    value = {
        "numbers": [1, -5, 300, 70_000, 2**100, 2.5, True, None],
        "text": "é\ud800" + "x" * 70_000,
        "raw": [b"ab", bytearray(b"c")],
        "sets": [{1}, frozenset({2})],
        "tuples": [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)],
        "ordered": OrderedDict(a=1),
    }
    data = pickle.dumps(value, protocol)
    found = run(data)
    assert found.complete and not found.problems and found.end == len(data)
    assert isinstance(found.value, PickledDict)
    assert found.value.get("numbers") == value["numbers"]
    assert found.value.get("text") == value["text"]
    assert ("collections", "OrderedDict") in found.references


def test_shared_and_recursive_parts_keep_their_identity() -> None:
    inner: list[object] = []
    inner.append(inner)
    value = run(pickle.dumps([inner, inner])).value
    assert isinstance(value, list) and value[0] is value[1] and value[0][0] is value[0]


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (CALL, ProblemKind.NO_STOP),
        (CALL + b"\xff", ProblemKind.UNKNOWN_OPCODE),
        (CALL + b"X\xff\0\0\0", ProblemKind.TRUNCATED),
        (b"00" + CALL + b".", ProblemKind.UNDERFLOW),
        (b"t0" + CALL + b".", ProblemKind.NO_MARK),
        (b"h\x070" + CALL + b".", ProblemKind.UNSET_MEMO),
        (b"Nq\x000]q\x000" + CALL + b".", ProblemKind.MEMO_OVERWRITTEN),
        (b"\x80\x02\x80\x02" + CALL + b".", ProblemKind.REPEATED_PROTO),
        (b"N" + CALL + b".", ProblemKind.LEFT_ON_STACK),
        (b"\x80\x04\x95\x05\0\0\0\0\0\0\0" + CALL + b".", ProblemKind.FRAME_STRADDLED),
        (CALL + b"0Nr\xff\xff\xff\x7f.", ProblemKind.MEMO_INDEX),
        (CALL + b"\x8e" + struct.pack("<Q", 1 << 40), ProblemKind.HUGE_OPERAND),
        (CALL + b"I" + b"9" * 5000 + b"\n.", ProblemKind.LONG_DIGITS),
    ],
)
def test_a_call_is_seen_whatever_is_wrong_with_the_stream(data: bytes, kind: ProblemKind) -> None:
    found = run(data)
    assert found.has(kind)
    assert [call.function for call in found.calls] == [Global("os", "system")]
    assert found.calls[0].args == ("echo",)


def test_no_operand_is_believed_before_it_is_compared_with_the_file() -> None:
    for opcode in (b"\x8e", b"\x8d", b"\x96"):
        found = run(opcode + struct.pack("<Q", (1 << 64) - 1))
        assert found.has(ProblemKind.HUGE_OPERAND)


def test_long_strings_stay_in_the_file() -> None:
    data = pickle.dumps(b"x" * 5000)
    value = run(data, string_bytes=100).value
    assert isinstance(value, Blob) and data[value.offset :][: value.length] == b"x" * 5000


def test_limits_end_the_run_and_say_so() -> None:
    many = run(b"N0" * 500, ops=100)
    deep = run(b"(" * 500, marks=100)
    assert many.has(ProblemKind.OPERATIONS) and deep.has(ProblemKind.DEEP_MARKS)
    with pytest.raises(BudgetExceeded):
        many.require_complete("x")
    with pytest.raises(FormatError):
        run(CALL).require_complete("x")


def test_a_doubled_tuple_costs_as_many_values_as_opcodes() -> None:
    found = run(b"K\x01" + b"2\x86" * 10_000 + b".")
    assert found.complete and found.ops == 20_002


def test_state_items_and_attributes_are_kept_with_the_call() -> None:
    data = b"(ccollections\nOrderedDict\no}S'a'\nI1\nsbS'k'\nI2\ns."
    made = run(data).value
    assert isinstance(made, Call) and made.opcode == "OBJ"
    assert len(made.states) == 1 and made.pairs == [("k", 2)]
