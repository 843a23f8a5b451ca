"""Factors in files measure as factors in memory do, however they are cut up and whoever reads beside."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from builders.adapters import write_adapter
from safetensors.torch import save_file

from ftsec_audit.contracts import Subject
from ftsec_audit.formats.tensors import TensorIndex
from ftsec_audit.sources import resolve
from ftsec_audit.weights import factored, factors, kernels
from ftsec_audit.weights.factors import Factors, HeldFactors, Scratch, StoredFactors
from ftsec_audit.weights.stream import deltas

FLOATS = [torch.bfloat16, torch.float16, torch.float32, torch.float64]


def stored(folder: Path, tensors: torch.Tensor) -> TensorIndex:
    """A file of the slices of (n, …), named 0, 1, …"""
    folder.mkdir(exist_ok=True)
    named = {str(k): tensor.contiguous() for k, tensor in enumerate(tensors)}
    save_file(named, folder / "model.safetensors")
    return resolve(str(folder)).tensors()


def both(folder: Path, tall: torch.Tensor, *, wide: bool) -> tuple[Factors, Factors]:
    """(n, d, r) from a file that keeps it tall or wide, and in memory."""
    index = stored(folder, tall.mT if wide else tall)
    names = [str(k) for k in range(len(tall))]
    return StoredFactors(index, names, wide=wide, scratch=Scratch()), HeldFactors(tall)


@pytest.mark.parametrize("elements", [1, 40, 300, 1 << 18])
@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("dtype", FLOATS)
def test_files_and_memory_agree(
    dtype: torch.dtype, wide: bool, elements: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(factors, "BLOCK_ELEMENTS", elements)
    tall = torch.randn(5, 37, 4, generator=torch.Generator().manual_seed(0)).to(dtype)
    from_file, in_memory = both(tmp_path, tall, wide=wide)
    columns = torch.randn(5, 4, 2, generator=torch.Generator().manual_seed(1))
    for found in (from_file, in_memory, from_file.held() if isinstance(from_file, StoredFactors) else None):
        assert found is not None
        assert found.shape == (5, 37, 4)
        exact = tall.double().mT @ tall.double()
        for precision in (torch.float32, torch.float64):
            torch.testing.assert_close(factored.gram(found, precision), exact, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(
            factored.coordinates(found, columns), (tall.float() @ columns).mT, rtol=1e-4, atol=1e-4
        )
        assert torch.equal(found.single(3), tall[3])
        torch.testing.assert_close(factored.gram(found.chosen([4, 1])), exact[[4, 1]], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rank", [8, 12, 16, 48])
@pytest.mark.parametrize("elements", [1 << 20, 1 << 17, 1 << 16])
@pytest.mark.parametrize("names", ["beside each other", "apart"])
def test_both_sides_are_multiplied_as_they_are_read(
    names: str, elements: int, rank: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(factored, "BLOCK_ELEMENTS", elements)
    sides = [
        torch.randn(3, d, rank, generator=torch.Generator().manual_seed(d)).bfloat16() for d in (2111, 3000)
    ]
    spelled = ["{k}.{side}", "{side}.{k}"][names == "apart"]
    stored_as = [sides[0], sides[1].mT]
    tensors = {
        spelled.format(k=k, side="BA"[s]): stored_as[s][k].contiguous() for k in range(3) for s in range(2)
    }
    save_file(tensors, tmp_path / "model.safetensors")
    index, scratch = resolve(str(tmp_path)).tensors(), Scratch()
    from_file = [
        StoredFactors(
            index, [spelled.format(k=k, side="BA"[s]) for k in range(3)], wide=s == 1, scratch=scratch
        )
        for s in range(2)
    ]
    taken = kernels.library() is not None and rank != 12 and rank * 3000 <= elements
    assert (factored._as_read(*from_file) is not None) is taken
    for found, side in zip(factored.grams(*from_file), sides, strict=True):
        exact = side.double().mT @ side.double()
        torch.testing.assert_close(found, exact, rtol=1e-4, atol=1e-2)


def test_streams_side_by_side_do_not_disturb_each_other(tmp_path: Path) -> None:
    paths = [write_adapter(tmp_path / str(k), rank=6, seed=k, dtype="BF16") for k in range(2)]
    subjects = [Subject(artifact=resolve(str(path)), base=None) for path in paths]
    alone = [[delta.singular_values() for delta in deltas(subject)] for subject in subjects]
    for pair, expected in zip(
        zip(*map(deltas, subjects), strict=True), zip(*alone, strict=True), strict=True
    ):
        vectors = [delta.top_singular_vectors()[0].clone() for delta in pair]
        for delta, sigma, u in zip(pair, expected, vectors, strict=True):
            assert torch.equal(delta.singular_values(), sigma)
            assert torch.equal(delta.top_singular_vectors()[0], u)
            assert float(u.norm()) == pytest.approx(1, rel=1e-4)
