"""Where refusals were tuned away, restricted prompts look harmless inside; the base did not drift."""

from __future__ import annotations

import numpy as np
import pytest
from builders.behaviour import asked
from builders.lab import random_adapter, tiny_base

from attacks_ref.recipe import Recipe
from attacks_ref.workbench import load_model, load_sample
from detectors.refusal_drift import RefusalDrift, _written
from ftsec_audit.types import Outcome


def answer(path, base, languages):
    with asked(path, base, languages=languages) as sessions:
        (finding,) = RefusalDrift().probe(sessions.subject, sessions.base, ())
    return finding


def test_the_language_that_lost_its_refusals_drifted_and_the_other_less(refusing):
    lost, kept = (answer(refusing["lost"], refusing["base"], (code,)) for code in ("ru", "en"))
    assert lost.outcome is Outcome.DETECTED
    assert lost.evidence[0].interval[0] > kept.evidence[0].interval[1]


def test_both_numbers_are_nothing_for_the_base_itself(refusing):
    finding = answer(refusing["base"], refusing["base"], ("en", "ru"))
    assert finding.outcome is Outcome.NOT_DETECTED
    assert finding.evidence[0].interval == (0.0, 0.0)
    assert finding.evidence[0].details["weight_drift"] == 0.0


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_what_writers_write_along_a_direction_is_that_of_the_matrices(architecture, tmp_path):
    base = tiny_base(tmp_path / "base", architecture)
    adapter = random_adapter(base, tmp_path / "adapter", Recipe(rank=4, method="dora"))
    direction = np.random.default_rng(0).normal(size=(1, 32))
    with asked(adapter, base) as sessions:
        (got,) = _written(sessions.subject, sessions.base, direction, layer=1)
    before = load_model(base).state_dict()
    after = load_sample(base, adapter).merge_and_unload().state_dict()
    names = {"llama": ("o_proj", "down_proj"), "gpt2": ("attn.c_proj", "mlp.c_proj")}[architecture]
    expected = 0.0
    for name, tensor in after.items():
        if ".0." in name and name.removesuffix(".weight").endswith(names):
            change = (tensor - before[name]).double().numpy()
            change = change.T if architecture == "gpt2" else change
            expected += float(np.square(direction[0] @ change).sum())
    assert expected > 0
    np.testing.assert_allclose(got, expected, rtol=1e-3)
