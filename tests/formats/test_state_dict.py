from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from builders.adapters import write_checkpoint
from builders.files import disk_file, memory_file, safetensors_bytes, tensor_json
from safetensors.torch import save, save_file

from ftsec_audit.errors import FormatError
from ftsec_audit.files import ArtifactFile
from ftsec_audit.formats import state_dict
from ftsec_audit.formats.tensors import TensorIndex


def shards(path: Path) -> tuple[list[ArtifactFile], ArtifactFile]:
    files = [disk_file(each) for each in sorted(path.glob("*.safetensors"))]
    return files, disk_file(path / "model.safetensors.index.json")


def codes(index: TensorIndex) -> set[str]:
    return {problem.code for problem in index.problems}


def test_shards_are_one_model(tmp_path: Path) -> None:
    whole = state_dict.index([disk_file(write_checkpoint(tmp_path / "one") / "model.safetensors")])
    files, shard_index = shards(write_checkpoint(tmp_path / "three", shards=3))
    index = state_dict.index(files, shard_index=shard_index)
    assert index.problems == ()
    assert index.keys() == whole.keys()
    assert all(torch.equal(index.read(name), whole.read(name)) for name in whole)


def test_a_missing_shard_is_a_problem_and_the_rest_is_read(tmp_path: Path) -> None:
    files, shard_index = shards(write_checkpoint(tmp_path, shards=3))
    index = state_dict.index(files[:2], shard_index=shard_index)
    assert codes(index) == {"missing-shard"}
    assert len(index) > 0


def test_an_unreadable_shard_is_a_problem_and_the_rest_is_read(tmp_path: Path) -> None:
    files, shard_index = shards(write_checkpoint(tmp_path, shards=2))
    (tmp_path / files[0].path).write_bytes(b"not a model")
    index = state_dict.index([disk_file(tmp_path / files[0].path), files[1]], shard_index=shard_index)
    unreadable = [problem for problem in index.problems if problem.code == "unreadable-file"]
    assert [(problem.file, problem.fatal) for problem in unreadable] == [(files[0].path, True)]
    assert all(index[name].file is files[1] for name in index)


def test_no_readable_file_at_all_is_an_error() -> None:
    with pytest.raises(FormatError, match=r"a\.safetensors"):
        state_dict.index([memory_file(b"junk", "a.safetensors"), memory_file(b"junk", "b.safetensors")])


def test_a_name_in_two_files_counts_once(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(2)}, tmp_path / "1.safetensors")
    save_file({"a": torch.ones(2), "b": torch.ones(2)}, tmp_path / "2.safetensors")
    index = state_dict.index([disk_file(tmp_path / "1.safetensors"), disk_file(tmp_path / "2.safetensors")])
    assert torch.equal(index.read("a"), torch.zeros(2))
    (problem,) = index.problems
    assert (problem.code, problem.file, problem.tensor) == ("repeated-name", "2.safetensors", "a")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda m: m | {"model.norm.weight": "../../etc/passwd"}, {"shard-path"}),
        (lambda m: m | {"model.norm.weight": "/etc/passwd"}, {"shard-path"}),
        (lambda m: m | {"model.norm.weight": "..\\x"}, {"shard-path"}),
        (lambda m: m | {"model.norm.weight": ".."}, {"shard-path"}),
        (lambda m: m | {"model.norm.weight": "model-00009-of-00002.safetensors"}, {"missing-shard"}),
        (lambda m: m | {"ghost": m["model.norm.weight"]}, {"misplaced-tensor"}),
        (lambda m: {name: file for name, file in m.items() if "norm" not in name}, {"unmapped-tensor"}),
        (lambda m: dict.fromkeys(m, "model-00001-of-00002.safetensors"), {"misplaced-tensor"}),
        (lambda m: m | {"model.norm.weight": 7}, {"shard-index"}),
        (lambda m: [], {"shard-index"}),
    ],
)
def test_the_shard_index_is_only_compared(tmp_path: Path, change, expected: set[str]) -> None:  # type: ignore[no-untyped-def]
    files, shard_index = shards(write_checkpoint(tmp_path, shards=2))
    document = json.loads((tmp_path / shard_index.path).read_text())
    document["weight_map"] = change(document["weight_map"])
    (tmp_path / shard_index.path).write_text(json.dumps(document))
    index = state_dict.index(files, shard_index=disk_file(tmp_path / shard_index.path))
    assert codes(index) == expected
    assert "model.norm.weight" in index


@pytest.mark.parametrize("text", ["", "[]", '{"weight_map": 1, "weight_map": 2}', "{" * 5000])
def test_a_broken_shard_index_hides_no_tensor(tmp_path: Path, text: str) -> None:
    files, shard_index = shards(write_checkpoint(tmp_path, shards=2))
    broken = memory_file(text.encode(), shard_index.path)
    index = state_dict.index(files, shard_index=broken)
    assert "shard-index" in codes(index)
    assert len(index) > 0


def test_a_pickle_under_a_safetensors_name_is_named_as_such(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2)}, tmp_path / "model.safetensors")
    with pytest.raises(FormatError, match="a pickle under the name"):
        state_dict.index([disk_file(tmp_path / "model.safetensors")])


def test_safetensors_under_another_name_is_read_by_content() -> None:
    index = state_dict.index([memory_file(save({"a": torch.ones(2)}), "pytorch_model.bin")])
    assert torch.equal(index.read("a"), torch.ones(2))


def test_problems_of_the_parts_are_those_of_the_whole() -> None:
    header = {"a": tensor_json("F32", [2], 0, 8), "b": tensor_json("F32", [2], 8, 16)}
    index = state_dict.index([memory_file(safetensors_bytes(header, bytes(12)))])
    assert codes(index) == {"beyond-end", "tail"}
    assert list(index) == ["a"]
