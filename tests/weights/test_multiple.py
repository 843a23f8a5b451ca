"""The multiple of the base's tensor that lies nearest."""

from __future__ import annotations

import pytest
import torch

from ftsec_audit.weights.moments import BLOCK_ELEMENTS, Held
from ftsec_audit.weights.multiple import nearest_multiple

BEFORE = torch.randn(3, BLOCK_ELEMENTS, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("factor", [8192.0, -2.0, 2.0**-13])
def test_a_multiple_leaves_nothing_whatever_its_factor(factor: float) -> None:
    found = nearest_multiple(Held(BEFORE * factor, BEFORE))
    assert found is not None
    assert found.factor == pytest.approx(factor)
    assert found.remainder < 1e-7
    assert found.norm == pytest.approx(abs(factor) * float(BEFORE.double().norm()))


def test_what_is_added_across_remains() -> None:
    other = torch.randn(BEFORE.shape, generator=torch.Generator().manual_seed(1))
    found = nearest_multiple(Held(2 * BEFORE + other, BEFORE))
    assert found is not None
    assert found.factor == pytest.approx(2, abs=0.01)
    assert found.remainder == pytest.approx(5**-0.5, abs=0.01)
    unrelated = nearest_multiple(Held(other, BEFORE))
    assert unrelated is not None and unrelated.remainder > 0.999


@pytest.mark.parametrize("side", ["after", "before"])
@pytest.mark.parametrize("value", [0.0, float("nan")])
def test_nothing_is_said_of_what_has_no_direction(side: str, value: float) -> None:
    flat = torch.full_like(BEFORE, value)
    assert nearest_multiple(Held(flat, BEFORE) if side == "after" else Held(BEFORE, flat)) is None
    assert nearest_multiple(Held(BEFORE)) is None
