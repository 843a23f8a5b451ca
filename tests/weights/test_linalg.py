"""Statistics of spectra against their definitions."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ftsec_audit.weights import linalg

STATISTICS = [
    linalg.stable_rank,
    linalg.top_energy_share,
    linalg.spectral_entropy,
    linalg.effective_rank,
    linalg.participation_ratio,
    linalg.gini,
    linalg.hoyer_sparsity,
    linalg.kurtosis,
]

spectra = st.lists(st.floats(1e-3, 1e3), min_size=2, max_size=20).map(
    lambda values: torch.tensor(sorted(values, reverse=True), dtype=torch.float64)
)


@pytest.mark.parametrize("r", [2, 5, 16])
def test_flat_spectrum_has_rank_r(r: int) -> None:
    flat = torch.full((r,), 7.0)
    assert linalg.stable_rank(flat) == pytest.approx(r)
    assert linalg.effective_rank(flat) == pytest.approx(r)
    assert linalg.participation_ratio(flat) == pytest.approx(r)
    assert linalg.spectral_entropy(flat) == pytest.approx(math.log(r))
    assert linalg.gini(flat) == pytest.approx(0, abs=1e-12)
    assert linalg.hoyer_sparsity(flat) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("r", [2, 5, 16])
def test_single_direction_has_rank_one(r: int) -> None:
    spike = torch.zeros(r)
    spike[0] = 3.0
    assert linalg.stable_rank(spike) == linalg.top_energy_share(spike) == pytest.approx(1)
    assert linalg.effective_rank(spike) == pytest.approx(1)
    assert linalg.participation_ratio(spike) == pytest.approx(1)
    assert linalg.gini(spike) == pytest.approx((r - 1) / r)
    assert linalg.hoyer_sparsity(spike) == pytest.approx(1)


@given(spectra, st.floats(1e-6, 1e6))
def test_scaling_is_no_signal(spectrum: torch.Tensor, factor: float) -> None:
    for statistic in STATISTICS:
        assert statistic(spectrum * factor) == pytest.approx(statistic(spectrum), rel=1e-9, abs=1e-9)


@given(spectra)
def test_ranks_are_ordered(spectrum: torch.Tensor) -> None:
    r = spectrum.numel()
    assert 1 - 1e-9 <= linalg.stable_rank(spectrum) <= linalg.participation_ratio(spectrum) + 1e-9 <= r + 1e-8
    assert linalg.effective_rank(spectrum) <= r + 1e-9


@pytest.mark.parametrize("statistic", STATISTICS)
def test_zero_answers_zero_and_nan_answers_nan(statistic) -> None:
    assert statistic(torch.zeros(5)) == 0
    assert math.isnan(statistic(torch.tensor([1.0, math.nan, 0.5])))


def test_kurtosis_of_known_distributions() -> None:
    assert linalg.kurtosis(torch.tensor([1.0, -1.0, 1.0])) == pytest.approx(1)
    normal = torch.randn(200_000, generator=torch.Generator().manual_seed(0))
    assert linalg.kurtosis(normal) == pytest.approx(3, abs=0.06)


def test_principal_cosines_of_a_rotation() -> None:
    angle = 0.3
    plane = torch.eye(4, dtype=torch.float64)[:, :2]
    turned = plane.clone()
    turned[:, 1] = torch.tensor([0.0, math.cos(angle), math.sin(angle), 0.0])
    mixed = turned @ torch.tensor([[2.0, 1.0], [0.0, 3.0]], dtype=torch.float64)
    assert linalg.principal_cosines(plane, mixed).tolist() == pytest.approx([1.0, math.cos(angle)])


def test_noise_stays_under_the_marchenko_pastur_edge_and_a_spike_does_not() -> None:
    noise = 0.1 * torch.randn(300, 200, generator=torch.Generator().manual_seed(1))
    edge = linalg.marchenko_pastur_edge(300, 200, 0.1)
    assert float(torch.linalg.svdvals(noise)[0]) < 1.03 * edge
    spike = noise + 2 * edge * torch.outer(torch.eye(300)[0], torch.eye(200)[0])
    assert float(torch.linalg.svdvals(spike)[0]) > 1.9 * edge
