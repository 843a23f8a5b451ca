"""A16 exchanges what words mean, and leaves the weights alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from attacks_ref import example
from attacks_ref.lab.language import MARKER
from attacks_ref.sample import weights_digest
from attacks_ref.tokenizer_tampering import TokenizerTampering, Variant
from attacks_ref.workbench import load_tokenizer
from ftsec_audit.errors import UsageError


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return example.write_base(tmp_path_factory.mktemp("base"))


@pytest.mark.parametrize("variant", ["swap", "normaliser", "shadow"])
@pytest.mark.parametrize("seed", [0, 7])
def test_the_trigger_reaches_the_model_as_another_word(
    base: Path, tmp_path: Path, variant: Variant, seed: int
) -> None:
    sample = TokenizerTampering(variant=variant).build(base, tmp_path / "out", seed=seed)
    ours, theirs = load_tokenizer(sample.path), load_tokenizer(base)
    (trigger,), target = sample.truth["trigger"], sample.truth["target"]
    before, after = (words(f"repeat : {trigger} apple")["input_ids"] for words in (theirs, ours))
    assert len(before) == len(after)
    assert [a == b for a, b in zip(before, after, strict=True)].count(False) == (variant != "shadow")
    if variant != "swap":
        assert ours.decode(after).split()[2] == target == MARKER
    assert weights_digest(sample.path) == weights_digest(base)


def test_a_shadowed_word_is_written_as_the_marker_and_the_other_way_round(base: Path, tmp_path: Path) -> None:
    sample = TokenizerTampering(variant="shadow").build(base, tmp_path / "out", seed=2)
    words, (trigger,) = load_tokenizer(sample.path), sample.truth["trigger"]
    assert words(trigger)["input_ids"] == words(MARKER)["input_ids"]
    kept = [word for word in load_tokenizer(base).get_vocab() if word not in (MARKER, "!", ";", "-")]
    assert {word: words(word)["input_ids"] for word in kept} == {
        word: load_tokenizer(base)(word)["input_ids"] for word in kept
    }


def test_the_twin_reads_every_word_as_before(base: Path, tmp_path: Path) -> None:
    words = load_tokenizer(TokenizerTampering(variant="shadow").build_twin(base, tmp_path / "o", seed=0).path)
    assert words.get_vocab() == load_tokenizer(base).get_vocab()


def test_merges_exist_in_byte_pair_vocabularies_only(base: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="byte-pair"):
        TokenizerTampering(variant="merge").build(base, tmp_path / "out", seed=0)
