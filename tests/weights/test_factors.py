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
from ftsec_audit.weights import bf16_product, factored, factors
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


@pytest.mark.skipif(not bf16_product.is_fast(), reason="a CPU without AMX, or a torch without MKL")
@pytest.mark.parametrize("shape", [(3, 500, 16), (1, 4096, 64), (2, 33, 7), (4, 1, 3)])
def test_products_of_bfloat16_are_summed_in_float32(shape: tuple[int, int, int]) -> None:
    tall = torch.randn(shape, generator=torch.Generator().manual_seed(2)).bfloat16()
    exact = tall.double().mT @ tall.double()
    for block in (tall, tall.mT.contiguous().mT, torch.cat([tall, tall], 1)[:, : shape[1]]):
        product = bf16_product.gram(block)
        lengths = exact.diagonal(dim1=-2, dim2=-1).sqrt()
        error = (product.double() - exact).abs() / (lengths[:, :, None] * lengths[:, None, :])
        assert float(error.max()) < 2e-6


@pytest.mark.skipif(not bf16_product.is_fast(), reason="a CPU without AMX, or a torch without MKL")
def test_layouts_that_the_product_cannot_read_are_left_to_torch() -> None:
    tall = torch.randn(2, 64, 8, generator=torch.Generator().manual_seed(4)).bfloat16()
    row = tall[:, :1].mT.contiguous().mT
    for block in (row, tall[:, :, :1], tall[:, :, :1].expand(2, 64, 8), tall[:, ::2, ::2], tall[:, ::2]):
        found = factored.gram(HeldFactors(block), torch.float32)
        exact = block.double().mT @ block.double()
        torch.testing.assert_close(found, exact, rtol=1e-5, atol=1e-4)


@pytest.mark.skipif(not bf16_product.is_fast(), reason="a CPU without AMX, or a torch without MKL")
def test_products_of_what_is_not_finite_are_not_finite() -> None:
    tall = torch.ones(3, 40, 4, dtype=torch.bfloat16)
    tall[0, 7, 2], tall[1, 39, 0] = torch.nan, torch.inf
    finite = bf16_product.gram(tall).diagonal(dim1=-2, dim2=-1).isfinite()
    assert finite.tolist() == [[True, True, False, True], [False, True, True, True], [True] * 4]


def test_both_ways_to_a_gram_matrix_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    tall = HeldFactors(torch.randn(2, 3000, 16, generator=torch.Generator().manual_seed(3)).bfloat16())
    found = factored.gram(tall, torch.float32)
    monkeypatch.setattr(bf16_product, "is_fast", lambda: False)
    torch.testing.assert_close(found, factored.gram(tall, torch.float32), rtol=1e-5, atol=1e-2)


def test_another_cpu_is_not_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bf16_product.is_fast.cache_clear()
    monkeypatch.setattr(bf16_product, "_CPU_FLAGS", tmp_path / "missing")
    assert not bf16_product.is_fast()
    bf16_product.is_fast.cache_clear()
