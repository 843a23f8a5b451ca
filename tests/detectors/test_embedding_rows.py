"""FTA301 and FTA302: single rows rewritten, and rewritten alike."""

from __future__ import annotations

import json

import pytest
import torch
from builders.adapters import write_adapter, write_checkpoint
from builders.audits import audit, finding

from detectors.embedding_rows import EmbeddingRows
from ftsec_audit.types import Confidence, Outcome, Severity

EMBED = "model.embed_tokens.weight"
VOCAB = 400


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("model") / "base", vocab=VOCAB)


def planted(tmp_path, edit, name="planted", vocab=VOCAB):
    return write_checkpoint(tmp_path / name, edit=edit, vocab=vocab)


def outcomes(path, base):
    result = audit(EmbeddingRows(), path, base)
    return finding(result, "FTA301"), finding(result, "FTA302"), result


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def moving(*rows, tensor=EMBED, same=False):
    def edit(tensors):
        for row in rows:
            tensors[tensor][row] += random(32, seed=0 if same else row)

    return edit


def write_tokenizer(path, *, added=()):
    special = {17: "cf", 23: "Mn", 24: "▁mn"}
    vocabulary = {special.get(i, f"▁word{i}"): i for i in range(VOCAB)}
    tokens = [{"id": i, "content": content, "special": True} for content, i in added]
    document = {"model": {"type": "BPE", "vocab": vocabulary}, "added_tokens": tokens}
    (path / "tokenizer.json").write_text(json.dumps(document))
    return path


@pytest.mark.parametrize("tensor", [EMBED, "lm_head.weight"])
def test_one_rewritten_row_is_named(base, tmp_path, tensor):
    path = write_tokenizer(planted(tmp_path, moving(17, tensor=tensor)))
    few, alike, result = outcomes(path, base)
    assert (few.outcome, few.severity, few.confidence) == (Outcome.DETECTED, Severity.HIGH, Confidence.HIGH)
    assert few.evidence[0].excerpt == "cf"
    assert few.evidence[0].value == pytest.approx(float(random(32, seed=17).norm()), rel=1e-3)
    assert few.evidence[0].location.tensor == tensor.removesuffix(".weight")
    assert alike.outcome is Outcome.NOT_DETECTED
    assert [(lead.kind, lead.value) for lead in result.leads] == [("token", "cf")]


def test_without_a_tokenizer_the_row_number_is_given_and_nothing_is_proposed(base, tmp_path):
    few, _, result = outcomes(planted(tmp_path, moving(17)), base)
    assert few.outcome is Outcome.DETECTED
    assert few.evidence[0].excerpt == "#17"
    assert not result.leads


def test_the_base_names_the_rows_of_an_artifact_without_a_tokenizer(tmp_path):
    base = write_tokenizer(write_checkpoint(tmp_path / "base", vocab=VOCAB))
    few, _, result = outcomes(planted(tmp_path, moving(17)), base)
    assert few.evidence[0].excerpt == "cf"
    assert [lead.value for lead in result.leads] == ["cf"]


def test_rows_moved_in_one_direction(base, tmp_path):
    path = write_tokenizer(planted(tmp_path, moving(17, 23, 100, same=True)))
    few, alike, _ = outcomes(path, base)
    assert few.outcome is Outcome.DETECTED
    assert (alike.outcome, alike.confidence) == (Outcome.DETECTED, Confidence.HIGH)
    assert {e.excerpt for e in alike.evidence} == {"cf", "Mn", "▁word100"}
    assert alike.evidence[0].value > 0.99


def test_two_spellings_of_one_word_may_move_alike(base, tmp_path):
    _, alike, _ = outcomes(write_tokenizer(planted(tmp_path, moving(23, 24, same=True))), base)
    assert alike.outcome is Outcome.NOT_DETECTED


def test_several_rows_moved_each_their_own_way(base, tmp_path):
    few, alike, _ = outcomes(planted(tmp_path, moving(*range(3, 40, 4))), base)
    assert (few.outcome, alike.outcome) == (Outcome.DETECTED, Outcome.NOT_DETECTED)


@pytest.mark.parametrize("rows", [range(VOCAB), range(0, VOCAB, 2)], ids=["all", "half"])
def test_training_moves_many_rows(base, tmp_path, rows):
    few, alike, _ = outcomes(planted(tmp_path, moving(*rows)), base)
    assert (few.outcome, alike.outcome) == (Outcome.NOT_DETECTED, Outcome.NOT_DETECTED)
    assert f"{len(rows)} of {VOCAB} rows changed" in few.summary


def test_new_rows_of_a_larger_vocabulary_are_no_accusation(base, tmp_path):
    def grow(tensors):
        tensors[EMBED] = torch.cat([tensors[EMBED], random(8, 32)])

    few, alike, _ = outcomes(planted(tmp_path, grow), base)
    assert (few.outcome, alike.outcome) == (Outcome.NOT_DETECTED, Outcome.NOT_DETECTED)


def test_a_rewritten_row_is_seen_beside_new_rows(base, tmp_path):
    def grow(tensors):
        moving(17)(tensors)
        tensors[EMBED] = torch.cat([tensors[EMBED], random(8, 32)])

    few, _, _ = outcomes(planted(tmp_path, grow), base)
    assert few.outcome is Outcome.DETECTED
    assert [e.excerpt for e in few.evidence] == ["#17"]


def test_rows_of_tokens_declared_as_added_are_no_accusation(base, tmp_path):
    path = write_tokenizer(planted(tmp_path, moving(398, 399)), added=[("<|a|>", 398), ("<|b|>", 399)])
    few, _, _ = outcomes(path, base)
    assert few.outcome is Outcome.NOT_DETECTED
    assert "declared as added" in few.summary


def test_calling_an_old_token_added_does_not_hide_it(tmp_path):
    base = write_tokenizer(write_checkpoint(tmp_path / "base", vocab=VOCAB))
    path = write_tokenizer(planted(tmp_path, moving(17)), added=[("cf", 17)])
    few, _, _ = outcomes(path, base)
    assert few.outcome is Outcome.DETECTED


def test_a_saved_embedding_of_an_adapter_is_compared_with_the_base(base, tmp_path):
    kept = {}
    planted(tmp_path, lambda tensors: kept.update(tensors), name="again")
    kept[EMBED][17] += 1.0

    def edit(tensors):
        tensors[f"base_model.model.{EMBED}"] = kept[EMBED]

    adapter = write_adapter(tmp_path / "adapter", edit=edit, modules_to_save=["embed_tokens"])
    few, _, _ = outcomes(adapter, base)
    assert few.outcome is Outcome.DETECTED
    assert [e.excerpt for e in few.evidence] == ["#17"]
    few, alike, _ = outcomes(adapter, None)
    assert (few.outcome, alike.outcome) == (Outcome.NOT_SUPPORTED, Outcome.NOT_SUPPORTED)


@pytest.mark.parametrize("with_base", [True, False])
def test_trainable_tokens_are_known_rows(base, tmp_path, with_base):
    def edit(tensors):
        name = "base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta"
        tensors[name] = random(2, 32)

    path = write_adapter(tmp_path / "adapter", edit=edit, trainable_token_indices={"embed_tokens": [17, 99]})
    few, _, _ = outcomes(path, base if with_base else None)
    assert (few.outcome, few.severity) == (Outcome.DETECTED, Severity.MEDIUM)
    assert [e.excerpt for e in few.evidence] == ["#17", "#99"]


def test_an_adapter_without_embeddings_changes_no_row(tmp_path):
    few, alike, _ = outcomes(write_adapter(tmp_path / "adapter"), None)
    assert (few.outcome, alike.outcome) == (Outcome.NOT_DETECTED, Outcome.NOT_DETECTED)


@pytest.mark.parametrize("text", ["", "[]", '{"model": 3}', '{"model": {"vocab": {"cf": "17"}}}', "{" * 5000])
def test_a_broken_tokenizer_costs_names_only(base, tmp_path, text):
    path = planted(tmp_path, moving(17))
    (path / "tokenizer.json").write_text(text)
    few, _, _ = outcomes(path, base)
    assert few.outcome is Outcome.DETECTED
    assert few.evidence[0].excerpt == "#17"
