from __future__ import annotations

import io
import itertools
import math
from pathlib import Path

import pytest
import torch
from builders.files import disk_file, memory_file, safetensors_bytes, tensor_json
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save, save_file

from ftsec_audit.errors import FormatError, Unsupported
from ftsec_audit.files import ArtifactFile, LocalBytes, MemoryBytes
from ftsec_audit.formats import safetensors, state_dict, torch_pickle
from ftsec_audit.formats.tensors import DTYPE_BITS, TensorIndex, contiguous_stride, span, torch_dtype

DTYPES = [
    *(torch.bool, torch.uint8, torch.int8, torch.int16, torch.uint16, torch.int32, torch.uint32),
    *(torch.int64, torch.uint64, torch.float16, torch.bfloat16, torch.float32, torch.float64),
    *(torch.complex64, torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e8m0fnu),
]


def indexed(content: dict[str, torch.Tensor]) -> TensorIndex:
    return TensorIndex(safetensors.index(memory_file(save(content))))


def as_bytes(tensor: torch.Tensor) -> bytes:
    flat = tensor.contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_is_read_bit_for_bit(dtype: torch.dtype) -> None:
    tensor = torch.arange(1, 7).reshape(2, 3).to(dtype)
    found = indexed({"a": tensor}).read("a")
    assert found.dtype == dtype
    assert found.shape == tensor.shape
    assert as_bytes(found) == as_bytes(tensor)


def test_values_that_are_not_finite_survive() -> None:
    tensor = torch.tensor([math.nan, math.inf, -math.inf, -0.0], dtype=torch.bfloat16)
    assert as_bytes(indexed({"a": tensor}).read("a")) == as_bytes(tensor)


@pytest.mark.parametrize("dtype", ["F4", "F6_E2M3", "F6_E3M2"])
def test_a_dtype_without_a_torch_type_is_indexed_but_not_read(dtype: str) -> None:
    nbytes = DTYPE_BITS[dtype]
    header = {"a": tensor_json(dtype, [8], 0, nbytes)}
    index = TensorIndex(safetensors.index(memory_file(safetensors_bytes(header, bytes(nbytes)))))
    assert index["a"].shape == (8,)
    for attempt in (
        lambda: index.read("a"),
        lambda: index.read_rows("a", 0, 4),
        lambda: list(index.blocks("a", 64)),
    ):
        with pytest.raises(Unsupported, match=dtype):
            attempt()


def test_read_owns_its_memory() -> None:
    index = indexed({"a": torch.ones(4)})
    first = index.read("a")
    first.zero_()
    assert index.read("a").sum() == 4


@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (3, 0), (1,), (5,), (7, 3), (2, 3, 4)])
def test_blocks_and_rows_put_together_are_the_tensor(shape: tuple[int, ...]) -> None:
    tensor = torch.arange(math.prod(shape), dtype=torch.float32).reshape(shape)
    index = indexed({"a": tensor})
    assert torch.equal(index.read("a"), tensor)
    for nbytes in (1, 4, 13, 24, 1 << 20):
        pieces = [block.clone().reshape(-1) for block in index.blocks("a", nbytes)]
        assert all(piece.nbytes <= max(nbytes, 4) for piece in pieces)
        assert torch.equal(torch.cat([torch.empty(0), *pieces]), tensor.reshape(-1))
    if shape:
        rows = [index.read_rows("a", start, start + 2) for start in range(0, max(1, shape[0]), 2)]
        assert torch.equal(torch.cat(rows), tensor)


def test_blocks_are_whole_rows_while_a_row_fits() -> None:
    index = indexed({"a": torch.arange(12.0).reshape(4, 3)})
    assert [tuple(block.shape) for block in index.blocks("a", 30)] == [(2, 3), (2, 3)]
    assert [tuple(block.shape) for block in index.blocks("a", 8)] == [(2,)] * 6


def test_blocks_share_one_buffer() -> None:
    index = indexed({"a": torch.arange(1000.0)})
    addresses = {block.data_ptr() for block in index.blocks("a", 64)}
    assert len(addresses) == 1


def test_several_tensors_are_read_side_by_side_from_a_byte_on() -> None:
    whole = torch.arange(12, dtype=torch.int16)
    index, memory = indexed({"a": whole[:6], "b": whole[6:]}), bytearray(8)
    index.read_each(["b", "a"], memoryview(memory), start=8)
    assert torch.frombuffer(memory, dtype=torch.int16).tolist() == [10, 11, 4, 5]
    with pytest.raises(FormatError, match="ends inside tensor 'b'"):
        index.read_each(["b"], memoryview(bytearray(14)))


def test_tensors_that_follow_one_another_are_read_at_once() -> None:
    tensors = {name: torch.full((4,), k, dtype=torch.int16) for k, name in enumerate("abcd")}
    index, memory = indexed(tensors), bytearray(24)
    seen = []
    for starts in index.read_runs(["a", "b", "d", "c", "d"], memoryview(memory)):
        seen.append((starts, [int.from_bytes(memory[start : start + 2], "little") for start in starts]))
    assert seen == [([0, 8], [0, 1]), ([0], [3]), ([0, 8], [2, 3])]
    small = bytearray(16)  # three of them do not fit
    assert list(index.read_runs("abc", memoryview(small))) == [[0, 8], [0]]
    assert list(index.read_runs([], memoryview(small))) == []


def test_a_run_that_the_file_cuts_short_names_the_tensor(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(save({"a": torch.zeros(4), "b": torch.zeros(4)}))
    index = TensorIndex(
        safetensors.index(ArtifactFile(path.name, path.stat().st_size, lambda _: LocalBytes(path)))
    )
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 8)
    with pytest.raises(FormatError, match="ends inside tensor 'b'"):
        list(index.read_runs(["a", "b"], memoryview(bytearray(64))))


def test_rows_are_clipped_like_a_slice_and_a_scalar_has_none() -> None:
    tensor = torch.arange(6.0).reshape(3, 2)
    index = indexed({"a": tensor, "s": torch.tensor(1.0)})
    assert torch.equal(index.read_rows("a", 1, 99), tensor[1:])
    assert index.read_rows("a", 2, 1).shape == (0, 2)
    with pytest.raises(ValueError, match="no rows"):
        index.read_rows("s", 0, 1)


class _Counting(MemoryBytes):
    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.read = 0

    def readinto_at(self, offset: int, buffer: memoryview) -> int:
        self.read += len(buffer)
        return super().readinto_at(offset, buffer)


def test_rows_cost_only_their_own_bytes() -> None:
    data = save({"embed": torch.zeros(1000, 8)})
    reader = _Counting(data)
    index = TensorIndex(safetensors.index(ArtifactFile("m.safetensors", len(data), lambda _: reader)))
    index.read_rows("embed", 10, 12)
    assert reader.read == 2 * 8 * 4


def test_a_file_that_shrinks_is_a_format_error() -> None:
    data = save({"a": torch.ones(8)})
    served = [data, data[:-1]]
    file = ArtifactFile("m.safetensors", len(data), lambda _: MemoryBytes(served.pop(0)))
    index = TensorIndex(safetensors.index(file))
    with pytest.raises(FormatError, match="ends inside tensor 'a'"):
        index.read("a")


def test_reading_in_order_opens_each_file_once(tmp_path: Path) -> None:
    opened: list[str] = []

    def counted(path: Path) -> ArtifactFile:
        file = disk_file(path)
        return ArtifactFile(file.path, file.size, lambda name: opened.append(name) or file.open())

    for shard in range(5):
        save_file({f"t{shard}.{i}": torch.ones(3) for i in range(4)}, tmp_path / f"{shard}.safetensors")
    files = [counted(tmp_path / f"{shard}.safetensors") for shard in range(5)]
    index = state_dict.index(files)
    opened.clear()
    for name in index:
        index.read(name)
    assert opened == [file.path for file in files]


strided = st.lists(st.integers(1, 4), min_size=1, max_size=4).flatmap(
    lambda shape: st.tuples(st.just(shape), st.permutations(range(len(shape))), st.integers(0, 1))
)


@settings(max_examples=60, deadline=None)
@given(strided, st.sampled_from([1, 12, 40, 1000]))
def test_strided_views_read_as_torch_sees_them(plan: tuple[list[int], list[int], int], nbytes: int) -> None:
    shape, order, skip = plan
    whole = torch.arange(float(math.prod(shape) + 3))
    view = whole[3:].reshape(shape).permute(order)
    view = view[skip:] if view.shape[0] > skip else view
    buffer = io.BytesIO()
    torch.save({"v": view}, buffer)
    index = TensorIndex(torch_pickle.index(memory_file(buffer.getvalue())))
    assert torch.equal(index.read("v"), view)
    assert torch.equal(index.read_rows("v", 1, 3), view[1:3])
    blocks = [block.clone() for block in index.blocks("v", nbytes)]
    assert all(block.nbytes <= max(nbytes, 4) for block in blocks)
    assert torch.equal(torch.cat([block.reshape(-1) for block in blocks]), view.reshape(-1))


def test_span_and_strides() -> None:
    assert contiguous_stride(()) == ()
    assert contiguous_stride((2, 3, 4)) == (12, 4, 1)
    for shape in itertools.product(range(1, 4), repeat=3):
        assert span(shape, contiguous_stride(shape)) == math.prod(shape)
    assert span((2, 0), (5, 1)) == 0
    assert span((), ()) == 1
    with pytest.raises(Unsupported):
        torch_dtype("F32 ")
