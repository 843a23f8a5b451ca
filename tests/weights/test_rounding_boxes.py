"""Shares of weights near the edges of quantisers' boxes."""

from __future__ import annotations

import pytest
import torch
from builders import boxes

from ftsec_audit.weights.rounding_boxes import GRIDS, boundary_masses, is_comb

by_grid = pytest.mark.parametrize("grid", sorted(GRIDS))


def normal(*shape, seed=0):
    return 0.02 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


DISTRIBUTIONS = {
    "normal": normal(128, 1024),
    "heavy tails": normal(128, 1024) / normal(128, 1024, seed=1).abs().add(0.01),
    "uniform": torch.rand(128, 1024, generator=torch.Generator().manual_seed(2)) - 0.5,
}


@by_grid
@pytest.mark.parametrize("name", DISTRIBUTIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_weights_that_know_nothing_of_a_grid_lie_evenly(grid, name, dtype):
    mass = boundary_masses(DISTRIBUTIONS[name].to(dtype).float())[grid]
    assert mass.share == pytest.approx(0.3, abs=0.02)
    assert mass.held == pytest.approx(0, abs=0.03)
    assert mass.count == 128 * 1024


@by_grid
@pytest.mark.parametrize("drift", [0.3, 0.5, 1.0])
@pytest.mark.parametrize("margin", [1e-3, 0.05, 0.1])
def test_weights_held_inside_their_boxes_crowd_at_the_edges(grid, drift, margin):
    weight = normal(128, 1024)
    moved = boxes.boxed(weight, grid, drift=drift, margin=margin)
    assert torch.equal(boxes.codes(moved, grid), boxes.codes(weight, grid))
    assert boundary_masses(moved)[grid].held > 0.08


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("stored", sorted(GRIDS))
def test_quantised_weights_are_a_comb_or_away_from_the_edges(stored, dtype):
    rows = boxes.dequantised(normal(128, 1024), stored).to(dtype).float()
    if stored not in ("int8", "q8_0"):
        assert is_comb(rows)
        return
    assert not is_comb(rows)
    assert max(mass.held for mass in boundary_masses(rows).values()) < 0.05


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_weights_as_trained_are_no_comb(name, dtype):
    assert not is_comb(DISTRIBUTIONS[name].to(dtype))
    assert not is_comb(torch.zeros(2, 64))
    assert not is_comb(torch.zeros(0, 64))


@by_grid
def test_the_largest_weight_is_in_the_middle_of_its_box(grid):
    rows = torch.zeros(1, 64)
    rows[0, [0, 40]] = -3.0
    mass = boundary_masses(rows)[grid]
    assert mass.share == 0
    assert mass.count == (0 if grid == "int4 by 128" else 64)


@by_grid
def test_zeros_and_nothing_are_not_counted(grid):
    for rows in (torch.zeros(4, 64), torch.zeros(0, 64), torch.zeros(4, 0)):
        assert boundary_masses(rows)[grid].count == 0
