from __future__ import annotations

import random

from ftsec_audit.sources.remote_bytes import Blocking, BlockStore, RemoteBytes
from ftsec_audit.sources.resumed import Sink


class Ranges:
    """Stands for the network: known bytes, and a note of what was asked for."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.size = len(data)
        self.where = "file"
        self.asked: list[tuple[int, int]] = []

    def fetch(self, start: int, stop: int, sink: Sink) -> None:
        self.asked.append((start, stop))
        sink(self.data[start:stop])


BLOCKING = Blocking(block=64, longest_request=512)
CAPACITY = 1024


def reader(size: int) -> tuple[RemoteBytes, Ranges]:
    ranges = Ranges(random.Random(0).randbytes(size))
    return RemoteBytes(ranges, BlockStore(CAPACITY), BLOCKING), ranges


def test_every_read_equals_the_slice() -> None:
    store = BlockStore(CAPACITY)
    ranges = Ranges(random.Random(0).randbytes(10_000))
    remote = RemoteBytes(ranges, store, BLOCKING)
    choose = random.Random(1)
    for _ in range(2000):
        offset, length = choose.randrange(0, 10_100), choose.choice((0, 1, 63, 64, 65, 700, 5000))
        assert remote.read_at(offset, length) == ranges.data[offset : offset + length]
        assert store.held <= CAPACITY
    assert max(stop - start for start, stop in ranges.asked) <= BLOCKING.longest_request


def test_readinto_past_the_end_writes_what_there_is() -> None:
    remote, ranges = reader(100)
    buffer = bytearray(50)
    assert remote.readinto_at(80, memoryview(buffer)) == 20
    assert buffer == ranges.data[80:] + bytes(30)
    assert remote.readinto_at(100, memoryview(buffer)) == 0
    assert remote.read_at(0, 0) == b""


def test_an_empty_file_asks_for_nothing() -> None:
    remote, ranges = reader(0)
    assert remote.read_at(0, 10) == b""
    assert ranges.asked == []


def test_small_reads_share_a_block() -> None:
    remote, ranges = reader(1000)
    for offset in (3, 60, 0, 20):
        remote.read_at(offset, 4)
    assert ranges.asked == [(0, 64)]


def test_one_read_is_one_request_and_no_more_than_its_blocks() -> None:
    remote, ranges = reader(10_000)
    remote.read_at(1000, 300)
    assert ranges.asked == [(960, 1344)]


def test_what_is_in_memory_is_not_asked_for_again() -> None:
    remote, ranges = reader(10_000)
    remote.read_at(128, 10)
    remote.read_at(64, 192)
    assert ranges.asked == [(128, 192), (64, 128), (192, 256)]


def test_reading_on_looks_ahead_and_jumping_does_not() -> None:
    remote, ranges = reader(100_000)
    for offset in range(0, 32_000, 64):
        remote.read_at(offset, 64)
    assert len(ranges.asked) < 80  # 500 blocks
    before = len(ranges.asked)
    remote.read_at(90_000, 8)
    remote.read_at(50_000, 8)
    assert [stop - start for start, stop in ranges.asked[before:]] == [64, 64]


def test_files_that_share_a_store_never_mix_their_blocks() -> None:
    store = BlockStore(CAPACITY)
    first, second = Ranges(b"a" * 500), Ranges(b"b" * 500)
    second.where = "another file"
    readers = [RemoteBytes(ranges, store, BLOCKING) for ranges in (first, second)]
    for _ in range(2):
        assert [reader.read_at(10, 2) for reader in readers] == [b"aa", b"bb"]
    assert first.asked == second.asked == [(0, 64)]


def test_a_store_smaller_than_one_read_costs_requests_but_no_bytes_are_lost() -> None:
    ranges = Ranges(random.Random(2).randbytes(5000))
    remote = RemoteBytes(ranges, BlockStore(64), BLOCKING)
    assert remote.read_at(7, 4000) == ranges.data[7:4007]
