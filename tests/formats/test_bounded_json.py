from __future__ import annotations

import gc

import pytest
from builders.files import memory_file

from ftsec_audit.errors import BudgetExceeded, FormatError
from ftsec_audit.formats.bounded_json import JsonLimits, RepeatedKeys, collector_paused, parse, read


def test_repeated_keys_keep_the_last_value_and_are_named() -> None:
    document = parse(b'{"a": 1, "b": {"c": 1, "\\u0063": 2}, "a": 3}')
    assert document.value == {"a": 3, "b": {"c": 2}}
    assert isinstance(document.value, RepeatedKeys)
    assert set(document.repeated) == {"a", "c"}


def test_constants_that_json_lacks_are_recorded() -> None:
    document = parse(b"[NaN, -Infinity]")
    assert document.constants == ("NaN", "-Infinity")


def test_what_follows_the_document_is_kept_apart() -> None:
    assert parse(b' {"a": 1} \n').tail == ""
    assert parse(b'{"a": 1}{"b": 2}').tail == '{"b": 2}'
    with pytest.raises(FormatError, match="after the end"):
        read(memory_file(b'{"a": 1}{"b": 2}', "config.json"))


@pytest.mark.parametrize(
    "text", [b"", b"{", b"{'a': 1}", b"\xff\xfe{}", b"\xef\xbb\xbf{}", b'"\\udc80"', b"1" * 5000, b"[1,]"]
)
def test_what_is_no_json_is_refused(text: bytes) -> None:
    with pytest.raises(FormatError):
        parse(text)


@pytest.mark.parametrize(
    ("text", "limits"),
    [
        (b"[" * 200_000, JsonLimits()),
        (b"[[[[1]]]]", JsonLimits(nesting=3)),
        (b'{"a":{"a":[]}}', JsonLimits(nesting=2)),
        (b"[" + b"0," * 100 + b"0]", JsonLimits(values=100)),
        (b" " * 100 + b"1", JsonLimits(size=100)),
    ],
)
def test_bounds(text: bytes, limits: JsonLimits) -> None:
    with pytest.raises(BudgetExceeded):
        parse(text, limits=limits)


def test_nesting_up_to_the_bound_is_read() -> None:
    assert parse(b"[[[1]]]", limits=JsonLimits(nesting=3)).value == [[[1]]]


def test_a_file_beyond_the_bound_is_not_read() -> None:
    file = memory_file(bytes(100), "config.json")
    with pytest.raises(BudgetExceeded, match=r"config.json: 100 bytes"):
        read(file, limits=JsonLimits(size=99))


def test_the_collector_is_as_it_was_after_a_failure() -> None:
    with pytest.raises(FormatError), collector_paused():
        assert not gc.isenabled()
        parse(b"{")
    assert gc.isenabled()
