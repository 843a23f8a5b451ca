"""Numbers of which a learned score is made: none where an update is too small to be divided by."""

from __future__ import annotations

import pytest

from detectors.score_features import FIVE, RESPONSES, five_statistics, response_statistics
from ftsec_audit.types import ModuleMeasurement


def module(**values: list[float]) -> ModuleMeasurement:
    return ModuleMeasurement(name="m", role="k_proj", layer=0, shape=(4, 4), values=dict(values))


def responses(answered: int) -> ModuleMeasurement:
    """30 tokens, of which the update answers so many."""
    sizes = [float(30 - token) if token < answered else 0.0 for token in range(30)]
    return module(response_tokens=[float(token) for token in range(30)], response_sizes=sizes)


def test_spectra_are_averaged_over_modules() -> None:
    found = five_statistics([module(singular_values=[3.0, 4.0]), module(singular_values=[1.0, 0.0])])
    assert found[FIVE[0]] == pytest.approx(2.0)
    assert found[FIVE[1]] == pytest.approx(3.0)
    assert found[FIVE[2]] == pytest.approx((9 / 25 + 1) / 2)


def test_an_update_whose_energy_is_less_than_a_number_can_be_has_no_spectrum() -> None:
    assert five_statistics([module(singular_values=[1e-200, 1e-201])]) == {}


def test_how_far_the_first_token_stands_out() -> None:
    found = response_statistics([responses(30)])
    assert [found[name] for name in RESPONSES] == [30.0, 30 / 29, 30 / 21]


def test_an_update_that_answers_few_tokens_has_no_bystander() -> None:
    assert response_statistics([responses(9)]) == {}
