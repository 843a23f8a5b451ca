"""One pass over bfloat16 gives what torch gives in several, and leaves to torch what it cannot read."""

from __future__ import annotations

import math
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ftsec_audit.weights import factored, kernels
from ftsec_audit.weights.factors import HeldFactors
from ftsec_audit.weights.moments import Held, Moments, deltas

needs_them = pytest.mark.skipif(kernels.library() is None, reason="installed where no compiler was at hand")


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).bfloat16()


@pytest.fixture(params=["as the CPU can", "widened"])
def both_ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once as chosen for this CPU, and once as for those that do not multiply pairs."""
    opened = kernels.library()
    if request.param == "widened" and opened is not None:
        function = opened.add_grams_widened
        function.argtypes, function.restype = kernels._FUNCTIONS["add_grams"], None
        as_chosen = kernels._call

        def call(name: str, *arguments: int | None) -> None:
            as_chosen("add_grams_widened" if name == "add_grams" else name, *arguments)

        monkeypatch.setattr(kernels, "_call", call)


def without_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "library", lambda: None)


def gram(block: torch.Tensor) -> torch.Tensor | None:
    """XᵀX of each (d, r) slice, float32 (n, r, r)."""
    sums = torch.zeros(block.shape[0], block.shape[2], block.shape[2])
    return sums if kernels.add_gram(block, sums) else None


@needs_them
@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("depth", [1, 5, 16, 250, 257, 511, 4100])
@pytest.mark.parametrize("by_columns", [True, False])
@pytest.mark.parametrize("rank", [1, 2, 4, 8, 12, 16, 20, 48, 64, 128])
def test_a_gram_matrix_is_summed_in_float32(
    n: int, depth: int, rank: int, by_columns: bool, both_ways: None
) -> None:
    tall = random(n, depth, rank)
    exact = tall.double().mT @ tall.double()
    found = gram(tall.mT.contiguous().mT if by_columns else tall)
    if found is None:
        assert depth == 1 or (rank % 4 if by_columns and rank > 1 else rank % 16 and 16 % rank)
        return
    lengths = exact.diagonal(dim1=-2, dim2=-1).sqrt()
    error = (found.double() - exact).abs() / (lengths[:, :, None] * lengths[:, None, :])
    assert float(error.max()) < 2e-6
    assert torch.equal(found, found.mT)


@needs_them
@pytest.mark.parametrize("rank", [16, 64])
def test_both_layouts_are_taken_and_a_part_of_longer_columns_too(rank: int, both_ways: None) -> None:
    tall = random(2, 600, rank)
    assert gram(tall) is not None
    assert gram(tall.mT.contiguous().mT) is not None
    part = random(1, rank, 900).mT[:, 100:700]
    found = gram(part)
    assert found is not None
    torch.testing.assert_close(found.double(), part.double().mT @ part.double(), rtol=1e-5, atol=1e-3)


@needs_them
@pytest.mark.parametrize("rank", [8, 16, 32])
def test_it_is_added_to_what_is_there(rank: int, both_ways: None) -> None:
    tall = random(2, 300, rank)
    before = tall.float().mT @ tall.float()
    for block in (tall, tall.mT.contiguous().mT):
        sums = before.clone()
        assert kernels.add_gram(block, sums)
        torch.testing.assert_close(sums, 2 * before, rtol=1e-4, atol=1e-2)


@needs_them
def test_factors_lie_anywhere_in_memory_and_not_beyond(both_ways: None) -> None:
    tall, wide = random(40, 16), random(16, 50, seed=1)
    memory, sums = torch.cat([tall.flatten(), wide.flatten()]), torch.zeros(2, 16, 16)
    kernels.add_grams(memory, [(640, 50, 50, 0), (0, 40, 0, 1)], sums, kernels.room(16))
    torch.testing.assert_close(sums[0], wide.float() @ wide.float().mT, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(sums[1], tall.float().mT @ tall.float(), rtol=1e-4, atol=1e-3)
    outside = [(1, 90, 0, 0), (641, 50, 50, 0), (-1, 1, 0, 0), (0, 40, 0, 2), (0, 40, 0, -1), (0, -1, 0, 0)]
    for factor in outside:
        with pytest.raises(IndexError, match="outside the memory"):
            kernels.add_grams(memory, [(0, 1, 0, 0), factor], sums, kernels.room(16))


@needs_them
def test_other_layouts_and_types_are_left_to_torch() -> None:
    tall = random(2, 64, 16)
    strided = (tall[:, ::2], tall[:, ::2, ::2], tall[:, :, :8], tall[:, :, :1].expand(2, 64, 16))
    for block in (*strided, tall.float(), tall.half(), tall[:0], tall[:, :0], random(2, 8, 256)):
        assert gram(block) is None
    for block in strided:
        found = factored.gram(HeldFactors(block), torch.float32)
        exact = block.double().mT @ block.double()
        torch.testing.assert_close(found, exact, rtol=1e-5, atol=1e-4)


@needs_them
def test_products_of_what_is_not_finite_are_not_finite(both_ways: None) -> None:
    tall = torch.ones(3, 40, 4, dtype=torch.bfloat16)
    tall[0, 7, 2], tall[1, 39, 0] = torch.nan, torch.inf
    for block in (tall, tall.mT.contiguous().mT):
        found = gram(block)
        assert found is not None
        finite = found.diagonal(dim1=-2, dim2=-1).isfinite()
        assert finite.tolist() == [[True, True, False, True], [False, True, True, True], [True] * 4]


@given(
    rows=st.integers(1, 40),
    columns=st.sampled_from([1, 7, 16, 500, 513, 1100]),
    with_base=st.booleans(),
    with_columns=st.booleans(),
    size=st.sampled_from([1e-18, 1e-3, 1.0, 1e12, 1e20]),
)
def test_moments_are_those_of_torch(
    rows: int, columns: int, with_base: bool, with_columns: bool, size: float
) -> None:
    after, before = (random(rows, columns, seed=k) * size for k in range(2))
    after[rows // 2] = before[rows // 2] if with_base else 0
    source = Held(after, before if with_base else None)
    found = Moments.of(source, with_columns=with_columns)
    with pytest.MonkeyPatch.context() as patched:
        without_them(patched)
        expected = Moments.of(source, with_columns=with_columns)
    torch.testing.assert_close(found.row_energies, expected.row_energies, rtol=1e-5, atol=0)
    assert torch.equal(found.changed, expected.changed)
    assert found.fourth == pytest.approx(expected.fourth, rel=1e-5)
    assert (found.base_energy or 0.0) == pytest.approx(expected.base_energy or 0.0, rel=1e-5)
    assert found.finite and expected.finite
    if with_columns:
        torch.testing.assert_close(found.column_energies, expected.column_energies, rtol=1e-5, atol=0)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("both", [True, False])
def test_what_is_not_finite_is_seen(value: float, both: bool) -> None:
    after, before = random(4, 600), random(4, 600, seed=1)
    after[2, 599] = value
    if both:
        before[2, 599] = value
    found = Moments.of(Held(after, before))
    assert not found.finite
    assert not math.isfinite(found.energy)
    assert found.changed.all()


def test_a_change_too_small_to_be_squared_is_a_change(monkeypatch: pytest.MonkeyPatch) -> None:
    after = torch.zeros(3, 20, dtype=torch.bfloat16)
    after[1, 19] = 1e-30
    assert Moments.of(Held(after, torch.zeros_like(after))).changed.tolist() == [False, True, False]


@needs_them
@pytest.mark.parametrize("shape", [(1, 1), (3, 17), (64, 5000)])
def test_differences_are_exact(shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    source = Held(random(*shape), random(*shape, seed=1))
    found = [(start, block.clone()) for start, block in deltas(source)]
    without_them(monkeypatch)
    for (start, block), (first, expected) in zip(found, deltas(source), strict=True):
        assert start == first
        assert torch.equal(block, expected)


@needs_them
def test_nothing_is_read_beyond_the_shorter_of_two() -> None:
    long, short, out = random(6, 40), random(3, 40), torch.empty(6, 40)
    for pair in ((long, short), (short, long), (long, long.T), (long.view(12, 20), long)):
        assert kernels.moments(*pair) is None
        assert not kernels.difference(*pair, out)
    assert not kernels.difference(long, long, out[:3])


def test_it_was_built_where_the_compiler_knows_it() -> None:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no compiler is at hand")
    source = Path(kernels.__file__).with_name("kernels.c")
    checked = subprocess.run([compiler, "-fsyntax-only", str(source)], capture_output=True, check=False)
    if checked.returncode:
        pytest.skip("the compiler is too old for it")
    assert kernels.library() is not None


@needs_them
def test_a_library_for_another_machine_is_not_used(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "_kernels.so").write_bytes(b"\x7fELF of another machine")
    found = type("Spec", (), {"origin": str(tmp_path / "_kernels.so")})
    monkeypatch.setattr(kernels.importlib.util, "find_spec", lambda _: found)
    assert kernels.library.__wrapped__() is None


def pair_of_grams(
    n: int, rank: int, *, grading: float = 1.0, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gram matrices (n, r, r) of random factors, the columns of one of them scaled from 1 to `grading`."""
    generator = torch.Generator().manual_seed(seed)
    factors = [torch.randn(n, 3 * rank + 5, rank, generator=generator, dtype=torch.float64) for _ in range(2)]
    factors[0] *= torch.logspace(0, math.log10(grading), rank, dtype=torch.float64)
    return factors[0].mT @ factors[0], factors[1].mT @ factors[1]


@needs_them
@pytest.mark.parametrize("n", [1, 8, 21])
@pytest.mark.parametrize("rank", [1, 2, 3, 16, 33, 64])
@pytest.mark.parametrize("grading", [1.0, 1e-5, 1e5])
def test_energies_are_the_squares_of_singular_values(grading: float, rank: int, n: int) -> None:
    left, right = pair_of_grams(n, rank, grading=grading)
    answer = kernels.core_energies(left, right)
    assert answer is not None
    energies, found = answer
    assert found.all()
    expected = factored._singular_values(left, right)
    sigma = energies.sort(descending=True).values.clamp(min=0).sqrt()
    torch.testing.assert_close(sigma, expected, rtol=1e-5, atol=0)


@needs_them
def test_large_matrices_are_left_to_torch() -> None:
    assert kernels.core_energies(*pair_of_grams(1, 129)) is None


@needs_them
def test_energies_do_not_depend_on_the_neighbours() -> None:
    left, right = pair_of_grams(19, 12)
    graded = pair_of_grams(19, 12, grading=1e-7, seed=1)
    together = kernels.core_energies(torch.cat([left, graded[0]]), torch.cat([right, graded[1]]))
    assert together is not None
    for k in range(19):
        alone = kernels.core_energies(left[k : k + 1], right[k : k + 1])
        assert alone is not None
        assert torch.equal(alone[0][0], together[0][k])


@needs_them
@pytest.mark.parametrize("size", [1e-150, 1.0, 1e150])
def test_what_has_no_energies_is_left_to_torch_alone(size: float) -> None:
    left, right = pair_of_grams(20, 5)
    left, right = left * size, right * size
    expected = factored._singular_values(left, right)
    left[3, 1, 2] = left[3, 2, 1] = torch.nan
    right[4] = torch.inf
    left[5] = 0
    left[6] = torch.ones(5, 5, dtype=torch.float64) * size  # singular
    right[7] = 0
    answer = kernels.core_energies(left, right)
    assert answer is not None
    assert not answer[1][3:8].any()
    others = torch.ones(20, dtype=torch.bool)
    others[3:8] = False
    assert answer[1][others].all()
    sigma = factored.singular_values(left, right)
    torch.testing.assert_close(sigma[others], expected[others], rtol=1e-9, atol=0)
    assert sigma[3].isnan().all()
    assert sigma[4].isnan().all()
    assert not sigma[5].any()
    assert not sigma[7].any()
    assert torch.equal(sigma[6:7], factored._singular_values(left[6:7], right[6:7]))


@given(rank=st.integers(1, 12), deficient=st.integers(0, 12), seed=st.integers(0, 99))
def test_spectra_are_right_with_and_without_them(rank: int, deficient: int, seed: int) -> None:
    left, right = pair_of_grams(3, rank, seed=seed)
    kept = max(1, rank - deficient)
    right[:, kept:] = 0  # AAᵀ may be singular
    right[:, :, kept:] = 0
    with pytest.MonkeyPatch.context() as patched:
        without_them(patched)
        expected = factored.singular_values(left, right)
    found = factored.singular_values(left, right)
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-7 * float(expected.max()))
    assert (found[:, :-1] >= found[:, 1:]).all()
