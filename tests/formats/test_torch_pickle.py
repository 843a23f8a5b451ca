from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from builders.files import disk_file, memory_file
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ftsec_audit.errors import BudgetExceeded, FormatError, FtsecError, Unsupported
from ftsec_audit.formats import state_dict, zip_members
from ftsec_audit.formats.tensors import TensorIndex
from ftsec_audit.formats.torch_pickle import TorchLimits, index, read_index

BOTH = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "stack"])


def saved(content: object, *, zipped: bool = True) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


def opened(data: bytes) -> TensorIndex:
    found = read_index(memory_file(data, "pytorch_model.bin"))
    return TensorIndex(found.entries, found.problems)


def as_bytes(tensor: torch.Tensor) -> bytes:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def content() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    base = torch.randn(6, 8)
    return OrderedDict(
        plain=base,
        transposed=base.t(),
        window=base[1:3, 2:5],
        column=base[:, 3],
        parameter=torch.nn.Parameter(torch.randn(3)),
        scalar=torch.tensor(2.5),
        empty=torch.empty(0, 4),
        permuted=torch.randn(2, 3, 4).double().permute(2, 0, 1),
        half=torch.randn(4).half(),
        bfloat=torch.randn(4, 2).bfloat16(),
        float8=torch.randn(8).to(torch.float8_e4m3fn),
        scale8=torch.ones(4).to(torch.float8_e8m0fnu),
        complex=torch.randn(3, dtype=torch.complex64),
        unsigned=torch.arange(4).to(torch.uint16),
        integers=torch.arange(5),
        booleans=torch.tensor([True, False]),
        one_of_many=torch.arange(100.0)[40:41],
    )


@BOTH
def test_every_kind_of_tensor_is_read_bit_for_bit(zipped: bool) -> None:
    expected = content()
    found = opened(saved(expected, zipped=zipped))
    assert found.problems == ()
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found.read(name).dtype == tensor.dtype, name
        assert found.read(name).shape == tensor.shape, name
        assert as_bytes(found.read(name)) == as_bytes(tensor), name


@BOTH
def test_a_shared_storage_is_stored_once_and_read_twice(zipped: bool) -> None:
    tied = torch.randn(50, 4)
    found = opened(saved({"embed": tied, "head": tied}, zipped=zipped))
    assert found["embed"].offset == found["head"].offset
    assert torch.equal(found.read("head"), tied)


@BOTH
@pytest.mark.parametrize("wrapper", ["state_dict", "model_state_dict", "model", "module"])
def test_a_training_checkpoint_is_unwrapped(zipped: bool, wrapper: str) -> None:
    found = opened(
        saved({"epoch": 3, wrapper: {"w": torch.ones(2)}, "optimizer": {"lr": 0.1}}, zipped=zipped)
    )
    assert list(found) == ["w"]
    assert [problem.code for problem in found.problems] == ["training-state"]


def test_a_saved_module_state_keeps_its_metadata_aside() -> None:
    module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.LayerNorm(2))
    found = opened(saved(module.state_dict()))
    assert found.keys() == module.state_dict().keys()
    assert found.problems == ()


def test_what_is_no_tensor_is_named_and_left_out() -> None:
    found = opened(saved({"w": torch.ones(2), "step": 3, "note": "x", "nested": {"v": torch.ones(1)}}))
    assert list(found) == ["w"]
    assert {problem.tensor: problem.fatal for problem in found.problems} == dict.fromkeys(
        ["step", "note", "nested"], False
    )


class _Calls:
    def __init__(self, function: Callable[..., object], *args: object) -> None:
        self.reduced = function, args

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.reduced


@BOTH
def test_nothing_in_the_pickle_is_called(zipped: bool, tmp_path: Path) -> None:
    trace = tmp_path / "executed"
    hostile = {"w": torch.ones(2), "x": _Calls(os.system, f"touch {trace}"), "y": _Calls(eval, "1/0")}
    found = opened(saved(hostile, zipped=zipped))
    assert not trace.exists()
    assert list(found) == ["w"]
    assert {(problem.code, problem.tensor) for problem in found.problems} == {
        ("unsupported-tensor", "x"),
        ("unsupported-tensor", "y"),
    }
    assert any("system" in problem.message for problem in found.problems)


def test_sparse_and_quantised_tensors_are_unsupported_by_name() -> None:
    found = opened(saved({"w": torch.ones(2), "sparse": torch.eye(3).to_sparse()}))
    (problem,) = found.problems
    assert problem.tensor == "sparse"
    assert problem.fatal
    assert "_rebuild_sparse_tensor" in problem.message


def _rebuilt(offset: object, size: object, stride: object) -> dict[str, object]:
    storage = torch.zeros(4).storage()
    call = _Calls(torch._utils._rebuild_tensor_v2, storage, offset, size, stride, False, OrderedDict())
    return {"w": call, "ok": torch.ones(2)}


@pytest.mark.parametrize(
    ("offset", "size", "stride"),
    [
        (0, (5,), (1,)),
        (4, (1,), (1,)),
        (-1, (1,), (1,)),
        (0, (2, 2), (1,)),
        (0, (1 << 62, 1 << 62), (1, 1)),
        (0, (-1,), (1,)),
        (0, (2,), (-1,)),
        (0, (2,), (1 << 70,)),
        (0, (1 << 40,), (0,)),
        (0, (1 << 20, 1 << 20), (0, 0)),
        (0, "four", (1,)),
        ("0", (1,), (1,)),
        (0, (1,) * 65, (1,) * 65),
        (True, (1,), (1,)),
    ],
)
@pytest.mark.filterwarnings("ignore:TypedStorage")
def test_a_view_that_cannot_be_is_left_out(offset: object, size: object, stride: object) -> None:
    found = opened(saved(_rebuilt(offset, size, stride)))
    assert list(found) == ["ok"]
    (problem,) = found.problems
    assert (problem.tensor, problem.fatal) == ("w", True)


def test_tensors_that_share_too_often_are_refused() -> None:
    storage = torch.zeros(1000)
    file = memory_file(saved({f"t{i}": storage for i in range(300)}))
    with pytest.raises(BudgetExceeded, match="share"):
        index(file, limits=TorchLimits(sharing=2))


def test_the_number_of_tensors_is_bounded() -> None:
    file = memory_file(saved({f"t{i}": i for i in range(20)}))
    with pytest.raises(BudgetExceeded, match="more than 10"):
        read_index(file, limits=TorchLimits(tensors=10))


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (b"", FormatError, "neither"),
        (b"hello", FormatError, "neither"),
        (b"PK\x03\x04", FormatError, "directory"),
        (b"\x80\x02}q\x00.", Unsupported, "bare pickle"),
        (pickle.dumps({"a": 1}), Unsupported, "bare pickle"),
        (saved([1, 2]), FormatError, "a list, not a state dict"),
        (saved(torch.ones(2)), FormatError, "a call to torch._utils._rebuild_tensor_v2, not a state dict"),
        (saved({"a": torch.ones(2)})[:-30], FormatError, "directory"),
        (saved({"a": torch.ones(2)}, zipped=False)[:60], FormatError, "broken pickle"),
    ],
)
def test_what_is_no_state_dict_says_why(data: bytes, error: type[FtsecError], message: str) -> None:
    with pytest.raises(error, match=message):
        index(memory_file(data))


def test_a_truncated_stack_still_gives_the_tensors_before_the_cut() -> None:
    data = saved({"a": torch.ones(100), "b": torch.ones(100)}, zipped=False)
    found = opened(data[:-4])
    assert len(found) == 1
    assert [problem.code for problem in found.problems] == ["damaged-tensor"]
    assert torch.equal(found.read(next(iter(found))), torch.ones(100))


def test_torchscript_is_unsupported(tmp_path: Path) -> None:
    data = repacked(saved({"a": torch.ones(1)}), add={"archive/constants.pkl": b"\x80\x02)."})
    with pytest.raises(Unsupported, match="TorchScript"):
        index(memory_file(data))


def repacked(
    data: bytes,
    *,
    compression: int = zipfile.ZIP_STORED,
    edit: Callable[[str, bytes], bytes] = lambda name, content: content,
    add: dict[str, bytes] | None = None,
) -> bytes:
    """The same archive written anew, its members changed."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(buffer, "w", compression) as new:
        for name in old.namelist():
            member = zipfile.ZipInfo(name)
            member.compress_type = compression
            new.writestr(member, edit(name, old.read(name)))
        for name, member_data in (add or {}).items():
            new.writestr(name, member_data)
    return buffer.getvalue()


def test_compressed_members_are_inflated() -> None:
    expected = content()
    found = opened(repacked(saved(expected), compression=zipfile.ZIP_DEFLATED))
    assert found.problems == ()
    assert all(as_bytes(found.read(name)) == as_bytes(tensor) for name, tensor in expected.items())


def test_the_position_is_taken_from_the_local_header() -> None:
    tensor = torch.randn(5)
    data = saved({"a": tensor})
    member = zipfile.ZipFile(io.BytesIO(data)).getinfo("archive/data/0")
    by_directory = member.header_offset + 30 + len(member.filename) + len(member.extra)
    found = opened(data)
    assert found["a"].offset > by_directory  # torch pads the local header so that storages are aligned
    assert torch.equal(found.read("a"), tensor)


def test_other_compressions_and_bombs_are_refused() -> None:
    plain = saved({"a": torch.zeros(1 << 18)})
    with pytest.raises(Unsupported, match="compression"):
        index(memory_file(repacked(plain, compression=zipfile.ZIP_LZMA)))
    bomb = memory_file(repacked(plain, compression=zipfile.ZIP_DEFLATED))
    with pytest.raises(BudgetExceeded, match="inflate"):
        zip_members.members(bomb, limits=zip_members.ZipLimits(inflated_bytes=1 << 19))


def test_a_member_that_inflates_to_more_than_it_claims_is_refused() -> None:
    data = bytearray(repacked(saved({"a": torch.zeros(1000)}), compression=zipfile.ZIP_DEFLATED))
    member = zipfile.ZipFile(io.BytesIO(bytes(data))).getinfo("archive/data/0")
    for position in _positions(bytes(data), member.file_size.to_bytes(4, "little")):
        data[position : position + 4] = (2000).to_bytes(4, "little")
    found = opened(bytes(data))
    with pytest.raises(FormatError, match=r"2,000|beyond"):
        (found.read("a") if "a" in found else _raise(found))


def _positions(data: bytes, what: bytes) -> list[int]:
    return [i for i in range(len(data)) if data.startswith(what, i)]


def _raise(found: TensorIndex) -> None:
    raise FormatError(found.problems[0].message)


def test_directories_with_too_many_or_equal_members_are_refused() -> None:
    many = repacked(saved({"a": torch.ones(1)}), add={f"archive/x{i}": b"" for i in range(50)})
    with pytest.raises(BudgetExceeded, match="members"):
        zip_members.members(memory_file(many), limits=zip_members.ZipLimits(members=20))
    with pytest.warns(UserWarning, match="Duplicate name"):
        twice = repacked(saved({"a": torch.ones(1)}), add={"archive/data.pkl": b"\x80\x02}."})
    with pytest.raises(FormatError, match="two members"):
        index(memory_file(twice))


def test_a_missing_or_short_storage_is_left_out() -> None:
    def cut(name: str, data: bytes) -> bytes:
        return data[:8] if name.endswith("/data/0") else data

    found = opened(repacked(saved({"a": torch.ones(4), "b": torch.ones(4)}), edit=cut))
    assert list(found) == ["b"]
    assert found.problems[0].message == "its storage has 8 bytes of 16"


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_big_endian_archive_is_turned_round(compression: int) -> None:
    expected = {
        "f": torch.randn(3, 2),
        "d": torch.randn(2).double(),
        "c": torch.randn(2, dtype=torch.complex64),
    }
    width = {"archive/data/0": 4, "archive/data/1": 8, "archive/data/2": 4}

    def swap(name: str, data: bytes) -> bytes:
        if name.endswith("byteorder"):
            return b"big"
        step = width.get(name, 0)
        return b"".join(data[i : i + step][::-1] for i in range(0, len(data), step)) if step else data

    found = opened(repacked(saved(expected), compression=compression, edit=swap))
    for name, tensor in expected.items():
        assert torch.equal(found.read(name), tensor)
        assert torch.equal(
            torch.cat([block.clone() for block in found.blocks(name, 8)]).reshape(-1), tensor.reshape(-1)
        )


def test_a_repeated_name_counts_by_its_last_value() -> None:
    class Twice(dict[str, torch.Tensor]):
        def items(self):  # type: ignore[no-untyped-def, override]
            return [("w", torch.zeros(2)), ("w", torch.ones(2))]

        def __reduce__(self):  # type: ignore[no-untyped-def]
            return OrderedDict, (), None, None, iter(self.items())

    found = opened(saved(Twice()))
    assert [problem.code for problem in found.problems] == ["repeated-name"]
    assert torch.equal(found.read("w"), torch.ones(2))


def test_a_file_on_disk_may_have_any_suffix(tmp_path: Path) -> None:
    for name in ("adapter_model.bin", "model.pt", "model.pth"):
        torch.save({"a": torch.ones(2)}, tmp_path / name)
        assert list(state_dict.index([disk_file(tmp_path / name)])) == ["a"]


VALID = {
    zipped: saved({"a": torch.ones(2, 3), "b": torch.zeros(4).half().t()}, zipped=zipped)
    for zipped in (True, False)
}


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.booleans(),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=6),
    st.floats(0, 1),
)
def test_no_mutation_raises_anything_but_our_errors(
    zipped: bool, changes: list[tuple[float, int]], keep: float
) -> None:
    data = bytearray(VALID[zipped])
    for place, value in changes:
        data[int(place * len(data))] = value
    try:
        found = opened(bytes(data[: int(keep * len(data)) + 1]))
        for name in found:
            assert found[name].offset + found[name].nbytes <= found[name].file.size
            found.read(name)
    except FtsecError:
        pass
