"""Lab bases are found by name; a foreign model cannot pass for one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from attacks_ref import example, safety
from attacks_ref.lab import cache, card
from attacks_ref.lab.cache import LabBase
from ftsec_audit.errors import UsageError


def test_a_name_round_trips() -> None:
    base = LabBase.parse("lab-qwen-nano-deep-bpe-3")
    assert (base.architecture, base.alignment, base.size, base.vocabulary, base.seed) == (
        "qwen",
        "deep",
        "nano",
        "bpe",
        3,
    )
    assert LabBase.parse(base.name) == base


@pytest.mark.parametrize("name", ["lab-", "lab-nano", "lab-llama-huge", "lab-llama-qwen"])
def test_a_name_that_means_nothing_is_refused(name: str) -> None:
    with pytest.raises(UsageError):
        LabBase.parse(name)


def test_every_property_changes_the_digest() -> None:
    names = ("lab-llama", "lab-gpt2", "lab-llama-deep", "lab-llama-nano", "lab-llama-bpe", "lab-llama-1")
    assert len({LabBase.parse(name).digest for name in names}) == len(names)


def test_a_lab_base_is_known_by_its_tokenizer(tmp_path: Path) -> None:
    base = example.write_base(tmp_path / "base")
    assert safety.is_lab_base(base)
    assert card.count_parameters(base) > 0
    path = base / "tokenizer.json"
    content = json.loads(path.read_text())
    vocabulary = content["model"]["vocab"]
    vocabulary["stranger"] = vocabulary.pop("apple")
    path.write_text(json.dumps(content))
    assert not safety.is_lab_base(base)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_nano_bases_pass_their_gates() -> None:
    """In one test, so that no second process trains the base that all of them begin with."""
    for alignment in cache.ALIGNMENTS:
        described = card.read(cache.obtain(LabBase.parse(f"lab-llama-nano-{alignment}")))
        assert described.gate["passed"], (alignment, described.gate["missed"])
