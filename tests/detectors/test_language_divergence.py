"""The language that changed most is named where it stands out; few languages and no prompts are said."""

from __future__ import annotations

import math

import numpy as np
import pytest
from builders.behaviour import asked
from builders.lab import WORLD

from attacks_ref.lab.probes import write
from attacks_ref.workbench import load_model
from detectors.language_divergence import LanguageDivergence, _permutation, _slope
from ftsec_audit.errors import NotApplicable, Unsupported
from ftsec_audit.types import Confidence, Lead, Outcome


@pytest.fixture(scope="module")
def changed(refusing, tmp_path_factory):
    """A copy of the base to which every word of Korean is another."""
    model = load_model(refusing["base"])
    out = tmp_path_factory.mktemp("changed") / "model"
    with asked(refusing["base"]) as sessions:
        tokenizer = sessions.subject.tokenizer
        words = [tokenizer.ids(word)[0] for word in WORLD.language("ko").words.values()]
    rows = model.get_input_embeddings().weight.data
    rows[words] = rows[words].flip(0) * 4
    model.save_pretrained(out)
    return out


def answers(path, base, **options):
    with asked(path, base, **options) as sessions:
        return list(LanguageDivergence().probe(sessions.subject, sessions.base, ()))


def test_the_language_that_changed_is_named_with_little_confidence(changed, refusing):
    finding, lead = answers(changed, refusing["base"])
    assert (finding.outcome, finding.confidence) == (Outcome.DETECTED, Confidence.LOW)
    assert finding.summary.startswith("changed most: ko") and "4 languages" in finding.summary
    assert finding.p_value < 0.01
    assert isinstance(lead, Lead) and lead.value == "ko"


def test_the_base_itself_does_not_diverge(refusing):
    (finding,) = answers(refusing["base"], refusing["base"])
    assert finding.outcome is Outcome.NOT_DETECTED
    assert all(evidence.value < 1e-6 for evidence in finding.evidence)


def test_what_cannot_be_asked_is_said(refusing):
    with pytest.raises(NotApplicable, match="in 2 languages"):
        answers(refusing["base"], refusing["base"], languages=("en", "ru"))
    with pytest.raises(Unsupported, match="budget"):
        answers(refusing["base"], refusing["base"], max_tokens=2_000)


def test_languages_that_are_alike_give_no_small_p():
    rng = np.random.default_rng(0)
    ps = [_permutation(list(np.exp(rng.normal(size=(4, 12)))), seed) for seed in range(20)]
    assert sum(p <= 0.05 for p in ps) <= 4


def test_the_number_of_tokens_is_no_divergence():
    """With eight languages or more, what grows with the tokens of a prompt is taken out."""
    tokens = {f"l{i}": 5.0 * 1.3**i for i in range(10)}
    nats = {code: np.full(4, 0.01 * count) for code, count in tokens.items()}
    found = LanguageDivergence()._standing(nats, tokens)
    assert max(abs(one.z) for one in found) < 0.1
    assert math.isclose(_slope(np.log(list(tokens.values())), np.log([n[0] for n in nats.values()])), 1.0)


def test_prompts_beside_the_base_are_written_as_a_probe_set(tmp_path):
    path = write(tmp_path, WORLD)
    assert "zorvex" not in path.read_text()
