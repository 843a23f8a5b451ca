from __future__ import annotations

import contextlib
import json
import struct
import time
from pathlib import Path

import pytest
import safetensors
import safetensors.torch
import torch
from builders.files import disk_file, memory_file, safetensors_bytes, tensor_json
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ftsec_audit.errors import BudgetExceeded, FormatError, FtsecError
from ftsec_audit.formats.safetensors import HeaderLimits, SafetensorsHeader, index, read_header
from ftsec_audit.formats.tensors import DTYPE_BITS, TensorIndex

FOUR = bytes(range(16))  # four float32


def read(header: object, data: bytes = FOUR, **options: int) -> SafetensorsHeader:
    return read_header(memory_file(safetensors_bytes(header, data, **options)))


def codes(header: SafetensorsHeader) -> list[str]:
    return [problem.code for problem in header.problems]


def test_an_ordinary_file_has_no_problems() -> None:
    header = read({"__metadata__": {"format": "pt"}, "a": tensor_json("F32", [2, 2], 0, 16)})

    (entry,) = header.entries
    assert (entry.name, entry.dtype, entry.shape, entry.nbytes, entry.stride) == (
        "a",
        "F32",
        (2, 2),
        16,
        None,
    )
    assert entry.file.open().read_at(entry.offset, entry.nbytes) == FOUR
    assert header.metadata == {"format": "pt"}
    assert header.problems == ()


def test_scalars_empty_tensors_and_an_empty_file_are_ordinary() -> None:
    header = read(
        {
            "scalar": tensor_json("F32", [], 0, 4),
            "none": tensor_json("I64", [3, 0], 4, 4),
            "rest": tensor_json("F32", [3], 4, 16),
        }
    )
    assert [entry.name for entry in header.entries] == ["scalar", "none", "rest"]
    assert header.problems == ()
    assert read({}, b"") == SafetensorsHeader(entries=(), metadata={}, problems=())


@pytest.mark.parametrize("dtype", sorted(set(DTYPE_BITS) - {"C128"}))
def test_every_published_dtype_is_known(dtype: str, tmp_path: Path) -> None:
    nbytes = DTYPE_BITS[dtype]  # of eight elements
    data = safetensors_bytes({"a": tensor_json(dtype, [8], 0, nbytes)}, bytes(nbytes))
    assert read_header(memory_file(data)).problems == ()
    (tmp_path / "one.safetensors").write_bytes(data)
    with safetensors.safe_open(tmp_path / "one.safetensors", "np") as reference:
        assert reference.get_slice("a").get_dtype() == dtype


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "too few"),
        (b"\x02\0\0\0\0\0\0\0", "too few"),
        (safetensors_bytes({}, length=1 << 40), "claims 1,099,511,627,776 bytes"),
        (safetensors_bytes({}, length=(1 << 64) - 1), "claims"),
        (safetensors_bytes({}, length=0), "not valid JSON"),
        (safetensors_bytes([]), "not a JSON object"),
        (safetensors_bytes('{"a":'), "not valid JSON"),
        (safetensors_bytes(b'{"\xff":1}'), "not UTF-8"),
        (safetensors_bytes(r'{"\ud800":1}'), "surrogate"),
        (safetensors_bytes('{"a":' + "9" * 5000 + "}"), "not valid JSON"),
        (b"\x80\x02}q\x00." + bytes(64), "claims"),
    ],
)
def test_what_is_no_safetensors_file_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        read_header(memory_file(data))


@pytest.mark.parametrize(
    "header",
    ['{"a":' + "[" * 100_000 + "]" * 100_000 + "}", '{"a":' * 50_000 + "1" + "}" * 50_000],
)
def test_deep_nesting_is_refused(header: str) -> None:
    with pytest.raises(BudgetExceeded, match="nested"):
        read(header)


def test_limits_on_size_tensors_and_values() -> None:
    two = {name: tensor_json("F32", [2], 8 * i, 8 * i + 8) for i, name in enumerate("ab")}
    file = memory_file(safetensors_bytes(two, FOUR))
    with pytest.raises(BudgetExceeded, match="tensors"):
        read_header(file, limits=HeaderLimits(tensors=0))
    with pytest.raises(BudgetExceeded, match="values"):
        read_header(file, limits=HeaderLimits(values=3))
    with pytest.raises(FormatError, match="the format allows 8"):
        read_header(file, limits=HeaderLimits(header_bytes=8))


def test_a_header_of_empty_objects_is_refused_before_it_is_parsed() -> None:
    with pytest.raises(BudgetExceeded, match="values"):
        read("[" + "{}," * 2_000_000 + "{}]")


@pytest.mark.parametrize(
    ("entry", "code"),
    [
        (7, "malformed"),
        (None, "malformed"),
        ({"dtype": "F32", "shape": [4]}, "malformed"),
        (tensor_json("F31", [4], 0, 16), "unknown-dtype"),
        (tensor_json("C128", [1], 0, 16), "unknown-dtype"),
        ({"dtype": ["F32"], "shape": [4], "data_offsets": [0, 16]}, "unknown-dtype"),
        (tensor_json("F32", [3], 0, 16), "size-mismatch"),
        (tensor_json("F4", [31], 0, 16), "size-mismatch"),
        (tensor_json("F32", [1 << 62, 1 << 62], 0, 16), "size-mismatch"),
        (tensor_json("F32", [-2, -2], 0, 16), "malformed"),
        (tensor_json("F32", [1 << 64], 0, 16), "malformed"),
        (tensor_json("F32", [4.0], 0, 16), "malformed"),
        (tensor_json("U8", [True], 0, 1), "malformed"),
        (tensor_json("F32", [1] * 65, 0, 4), "malformed"),
        (tensor_json("F32", [4], 16, 0), "malformed"),
        (tensor_json("F32", [4], -16, 0), "malformed"),
        (tensor_json("F32", [8], 0, 32), "beyond-end"),
    ],
)
def test_an_entry_that_cannot_be_true_is_left_out(entry: object, code: str) -> None:
    header = read({"bad": entry})
    problem = header.problems[0]
    assert (problem.code, problem.tensor, problem.fatal) == (code, "bad", True)
    assert header.entries == ()
    with pytest.raises(FormatError, match="no tensor can be read"):
        index(memory_file(safetensors_bytes({"bad": entry}, FOUR)))


def test_a_truncated_file_still_gives_the_tensors_before_the_cut() -> None:
    content = {"a": tensor_json("F32", [2], 0, 8), "b": tensor_json("F32", [2], 8, 16)}
    header = read(content, FOUR[:12])
    assert [entry.name for entry in header.entries] == ["a"]
    cut = next(problem for problem in header.problems if problem.fatal)
    assert (cut.code, cut.tensor) == ("beyond-end", "b")
    assert "4 bytes after the end" in cut.message


def test_overlapping_tensors_are_left_out() -> None:
    content = {f"t{i}": tensor_json("F32", [4], 0, 16) for i in range(100)}
    header = read(content)
    assert len(header.entries) == 1
    assert codes(header) == ["overlap"] * 99
    assert sum(entry.nbytes for entry in header.entries) <= 16


def test_holes_and_tails_are_located() -> None:
    header = read({"a": tensor_json("F32", [1], 4, 8)})
    hole, tail = header.problems
    assert (hole.code, hole.length, hole.fatal) == ("hole", 4, False)
    assert (tail.code, tail.length) == ("tail", 8)
    assert tail.offset is not None
    assert header.entries[0].file.open().read_at(tail.offset, 8) == FOUR[8:]


A = '{"dtype":"F32","shape":[4],"data_offsets":[0,16]}'


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (f'{{"a":{A},"a":{A}}}', ["repeated-name"]),
        (f'{{"a":{A},"\\u0061":{A}}}', ["repeated-name"]),
        (f'{{"a":{A[:-1]},"dtype":"I32"}}}}', ["repeated-key"]),
        (f'{{"a":{A[:-1]},"d\\u0074ype":"I32"}}}}', ["repeated-key"]),
        (f'{{"__metadata__":{{"k":"1","k":"2"}},"a":{A}}}', ["repeated-metadata"]),
        (f'{{"__metadata__":{{}},"__metadata__":{{}},"a":{A}}}', ["repeated-name"]),
        (f'{{"__metadata__":{{"k":1}},"a":{A}}}', ["metadata"]),
        (f'{{"__metadata__":[],"a":{A}}}', ["metadata"]),
        (f'{{"a":{A[:-1]},"x":1}}}}', ["unknown-key"]),
        (f'{{"a":{A}}}\0\0\0', ["nul-padding"]),
        (f'{{"a":{A}}}' + " " * 5000, ["large-padding"]),
        (f'{{"a":{A}}} __import__("os")', ["header-tail"]),
        (f' {{"a":{A}}}', ["header-start"]),
        (f'{{"__metadata__":{{"k":NaN}},"a":{A}}}', ["not-json", "metadata"]),
        (f'{{"a":{A}}}       ', []),
    ],
)
def test_oddities_are_reported_and_the_tensor_is_still_read(header: str, expected: list[str]) -> None:
    found = read(header)
    assert codes(found) == expected
    assert not any(problem.fatal for problem in found.problems)
    assert [entry.shape for entry in found.entries] == [(4,)]


def test_a_repeated_name_means_its_last_entry_as_for_the_reference_loader() -> None:
    text = f'{{"a":{A.replace("[4]", "[2]").replace("16", "8")},"a":{A}}}'
    data = safetensors_bytes(text, FOUR)
    assert safetensors.torch.load(data)["a"].shape == (4,)
    assert index(memory_file(data))[0].shape == (4,)


def test_a_mixture_of_experts_header_is_fast() -> None:
    count = 50_000
    entries = {
        f"model.layers.{i // 500}.mlp.experts.{i % 500}.up_proj.weight": tensor_json(
            "BF16", [2, 2], 8 * i, 8 * i + 8
        )
        for i in range(count)
    }
    file = memory_file(safetensors_bytes(entries, bytes(8 * count)))
    start = time.process_time()
    plain = json.loads(file.read(file.size - 8 * count)[8:])
    floor = time.process_time() - start
    start = time.process_time()
    header = read_header(file)
    spent = time.process_time() - start
    assert len(header.entries) == len(plain) == count
    assert header.problems == ()
    assert spent < 2 + 20 * floor  # catches quadratic work, nothing finer


tensors = st.dictionaries(
    st.text(min_size=1, max_size=12).filter(lambda name: name != "__metadata__"),
    st.tuples(
        st.sampled_from([torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.uint8, torch.bool]),
        st.lists(st.integers(0, 4), max_size=3),
    ),
    max_size=8,
)


@settings(max_examples=60, deadline=None)
@given(tensors, st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3))
def test_what_the_reference_writes_is_read_back(
    plan: dict[str, tuple[torch.dtype, list[int]]], metadata: dict[str, str]
) -> None:
    generator = torch.Generator().manual_seed(0)
    content = {
        name: torch.randint(0, 100, shape, generator=generator).to(dtype)
        for name, (dtype, shape) in plan.items()
    }
    header = read_header(memory_file(safetensors.torch.save(content, metadata or None)))
    assert header.problems == ()
    assert dict(header.metadata) == metadata
    found = TensorIndex(header.entries)
    assert found.keys() == content.keys()
    for name, tensor in content.items():
        assert found[name].shape == tuple(tensor.shape)
        assert found.read(name).dtype == tensor.dtype
        assert torch.equal(found.read(name), tensor)


VALID = safetensors.torch.save(
    {"model.layers.0.a": torch.ones(3, 2), "b": torch.zeros(4, dtype=torch.bfloat16), "c": torch.tensor(1)},
    {"format": "pt"},
)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.tuples(st.integers(0, len(VALID) - 1), st.integers(0, 255)), max_size=6),
    st.integers(0, len(VALID)),
    st.binary(max_size=8),
)
def test_no_mutation_raises_anything_but_our_errors(
    changes: list[tuple[int, int]], keep: int, extra: bytes
) -> None:
    data = bytearray(VALID)
    for position, value in changes:
        data[position] = value
    file = memory_file(bytes(data[:keep] + extra))
    try:
        header = read_header(file)
    except FtsecError:
        return
    _assert_lawful(header, file.size)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=6)
    | st.sampled_from(["F32", "F4"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["dtype", "shape", "data_offsets", "x"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.sampled_from(["a", "b", "__metadata__"]), json_values, max_size=3))
def test_no_json_raises_anything_but_our_errors(header: dict[str, object]) -> None:
    file = memory_file(safetensors_bytes(header, FOUR))
    with contextlib.suppress(FtsecError):
        _assert_lawful(read_header(file), file.size)


def _assert_lawful(header: SafetensorsHeader, size: int) -> None:
    """Entries lie inside the file, in order and apart."""
    position = 8
    for entry in header.entries:
        assert position <= entry.offset
        position = entry.offset + entry.nbytes
    assert position <= size


def test_a_file_on_disk_is_read_by_its_header_alone(tmp_path: Path) -> None:
    path = tmp_path / "huge.safetensors"
    text = json.dumps({"a": tensor_json("U8", [1 << 33], 0, 1 << 33)}).encode()
    with path.open("wb") as sparse:
        sparse.write(struct.pack("<Q", len(text)) + text)
        sparse.truncate(8 + len(text) + (1 << 33))
    assert index(disk_file(path))[0].nbytes == 1 << 33
