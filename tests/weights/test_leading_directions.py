"""What subspace iteration over blocks of rows finds, against the whole matrix."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ftsec_audit.weights.leading_directions import StreamedMatrix, leading_directions


def streamed(matrix: Tensor, rows: int = 7) -> tuple[StreamedMatrix, list[int]]:
    """In blocks of that many rows; the list grows by one with every pass."""
    passes: list[int] = []

    def blocks() -> Iterator[tuple[int, Tensor]]:
        passes.append(1)
        for start in range(0, len(matrix), rows):
            yield start, matrix[start : start + rows]

    norm = float(matrix.double().norm())
    return StreamedMatrix((matrix.shape[0], matrix.shape[1]), norm, blocks), passes


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=20, deadline=None)
@given(st.integers(5, 60), st.integers(5, 60), st.integers(1, 4), st.integers(0, 10_000))
def test_low_rank_is_recovered(rows: int, columns: int, rank: int, seed: int) -> None:
    matrix = random(rows, rank, seed=seed) @ random(rank, columns, seed=seed + 1)
    u, sigma, v = leading_directions(streamed(matrix)[0], rank, seed=seed)
    exact = torch.linalg.svdvals(matrix.double())[:rank]
    assert torch.allclose(sigma, exact, rtol=1e-4, atol=1e-4 * float(exact[0]))
    assert torch.allclose(u * sigma.float() @ v.mT, matrix, atol=1e-4 * float(exact[0]))


def test_noise_takes_two_passes_and_stays_under_its_edge() -> None:
    matrix, passes = streamed(random(700, 500), 100)
    _, sigma, _ = leading_directions(matrix, 16)
    assert len(passes) == 2
    assert 0.8 < float(sigma[0]) / matrix.noise_edge < 0.95


@pytest.mark.parametrize("turned", [False, True])
def test_a_spike_over_the_noise_is_looked_at_again(turned: bool) -> None:
    noise = random(700, 500, seed=2)
    edge = 700**0.5 + 500**0.5
    u, v = (torch.nn.functional.normalize(random(size, seed=3), dim=0) for size in (700, 500))
    whole = noise + 2 * edge * torch.outer(u, v)
    matrix, passes = streamed(whole.mT.contiguous() if turned else whole, 100)
    found_u, sigma, found_v = leading_directions(matrix, 16)
    assert len(passes) == 4
    assert float(sigma[0]) == pytest.approx(float(torch.linalg.svdvals(whole.double())[0]), rel=5e-3)
    if turned:
        found_u, found_v = found_v, found_u
    # In the noise the best direction leans away from the planted one by 1/(1 + spike²) or so.
    assert abs(float(found_u[:, 0] @ u)) > 0.9
    assert abs(float(found_v[:, 0] @ v)) > 0.9


def test_a_power_law_is_right_where_it_matters() -> None:
    u, v = (torch.linalg.qr(random(size, 500, seed=seed)).Q for size, seed in ((700, 4), (500, 5)))
    exact = torch.arange(1, 501) ** -0.5
    _, sigma, _ = leading_directions(streamed((u * exact) @ v.mT, 100)[0], 16)
    ratio = sigma / exact[:16]
    assert bool((ratio < 1 + 1e-4).all())
    assert float(ratio[0]) > 0.999
    assert float(ratio.min()) > 0.9


@pytest.mark.parametrize("magnitude", [1e-25, 1e25])
def test_size_is_no_obstacle(magnitude: float) -> None:
    matrix = random(90, 3) @ random(3, 80, seed=1)
    _, plain, _ = leading_directions(streamed(matrix)[0], 3)
    _, scaled, _ = leading_directions(streamed(matrix * magnitude)[0], 3)
    torch.testing.assert_close(scaled / magnitude, plain, rtol=1e-4, atol=0)
