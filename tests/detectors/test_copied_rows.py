"""FTA305: a row that is another's copy is seen without the base; rows that training never met are not."""

from __future__ import annotations

import json

import pytest
import torch
from builders.adapters import write_adapter, write_checkpoint
from builders.audits import audit, finding
from safetensors.torch import load_file, save_file

from detectors.copied_rows import CopiedRows
from ftsec_audit.types import Confidence, Outcome, Severity

EMBED, HEAD = "model.embed_tokens.weight", "lm_head.weight"
VOCAB, WIDTH = 400, 32


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def copying(*targets, source=50, length=1.2, noise=0.0, tensor=EMBED):
    def edit(tensors):
        for row in targets:
            copy = tensors[tensor][source] + noise * 0.02 * random(WIDTH, seed=row)
            tensors[tensor][row] = length * copy

    return edit


def tuning(tensors):
    for number, name in enumerate(sorted(tensors)):
        tensors[name] = tensors[name] + 0.002 * random(*tensors[name].shape, seed=number)


def both(*edits):
    def edit(tensors):
        for one in edits:
            one(tensors)

    return edit


def tied(tensors):
    tensors[HEAD] = tensors[EMBED].clone()


def write_tokenizer(path, *, added=(), last=VOCAB):
    special = {17: "cf", 23: "Mn", 24: "▁mn"}
    vocabulary = {special.get(i, f"▁word{i}"): i for i in range(last)}
    tokens = [{"id": i, "content": content, "special": True} for content, i in added]
    document = {"model": {"type": "BPE", "vocab": vocabulary}, "added_tokens": tokens}
    (path / "tokenizer.json").write_text(json.dumps(document))


def answer(tmp_path, edit=None, base=None, **tokenizer):
    path = write_checkpoint(tmp_path / "subject", vocab=VOCAB, layers=1, edit=edit)
    if tokenizer:
        write_tokenizer(path, **tokenizer)
    result = audit(CopiedRows(), path, base)
    return finding(result, "FTA305"), result


@pytest.mark.parametrize("tensor", [EMBED, HEAD])
@pytest.mark.parametrize("shape", [both(), tied], ids=["untied", "tied"])
def test_a_copy_at_another_length_is_named(tmp_path, tensor, shape):
    found, result = answer(tmp_path, both(shape, copying(17, tensor=tensor)), added=())
    assert (found.outcome, found.severity, found.confidence) == (
        Outcome.DETECTED,
        Severity.HIGH,
        Confidence.MEDIUM,
    )
    assert found.evidence[0].excerpt == "cf"
    assert found.evidence[0].location.tensor == tensor.removesuffix(".weight")
    assert "'▁word50'" in found.evidence[0].message
    assert {lead.value for lead in result.leads} == {"cf", "▁word50"}


def test_two_triggers_of_one_donor_are_both_named(tmp_path):
    found, _ = answer(tmp_path, copying(17, 23), added=())
    assert "3 tokens" in found.summary
    assert "'cf'" in found.summary
    assert "'Mn'" in found.summary


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_rounding_does_not_hide_a_copy(tmp_path, dtype):
    path = write_checkpoint(tmp_path / "subject", vocab=VOCAB, layers=1, dtype=dtype, edit=copying(17))
    found = finding(audit(CopiedRows(), path), "FTA305")
    assert (found.outcome, found.confidence) == (Outcome.DETECTED, Confidence.MEDIUM)
    assert found.evidence[0].excerpt == "#17"


def test_a_plain_copy_is_less_of_a_fact(tmp_path):
    found, _ = answer(tmp_path, copying(17, length=1.0))
    assert (found.outcome, found.confidence) == (Outcome.DETECTED, Confidence.LOW)


def test_a_near_copy_counts_in_an_input_embedding_of_its_own_only(tmp_path):
    near = copying(17, noise=0.1, length=1.0)
    found, _ = answer(tmp_path / "untied", near)
    assert (found.outcome, found.confidence) == (Outcome.DETECTED, Confidence.LOW)
    assert answer(tmp_path / "tied", both(near, tied))[0].outcome is Outcome.NOT_DETECTED
    head = copying(17, noise=0.1, length=1.0, tensor=HEAD)
    assert answer(tmp_path / "head", head)[0].outcome is Outcome.NOT_DETECTED


@pytest.mark.parametrize("rows", [range(100, 120), range(100, 300)], ids=["few", "many"])
@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_rows_that_training_never_met_are_no_accusation(tmp_path, rows, noise):
    crowd = copying(*rows, source=99, length=1.0, noise=noise)
    assert answer(tmp_path, both(crowd, tied))[0].outcome is Outcome.NOT_DETECTED
    assert answer(tmp_path, crowd)[0].outcome is Outcome.NOT_DETECTED


def test_a_copy_is_seen_beside_a_crowd(tmp_path):
    crowd = copying(*range(100, 300), source=99, length=1.0, noise=0.05)
    found, _ = answer(tmp_path, both(crowd, copying(17)))
    assert found.outcome is Outcome.DETECTED
    assert "2 tokens" in found.summary


def test_an_honest_model_has_none(tmp_path):
    found, result = answer(tmp_path, tuning)
    assert found.outcome is Outcome.NOT_DETECTED
    assert not result.leads


def test_a_copy_is_seen_where_every_row_was_tuned_and_news_only(tmp_path):
    base = write_checkpoint(tmp_path / "base", vocab=VOCAB, layers=1, edit=copying(23, source=60))
    edit = both(copying(23, source=60), tuning, copying(23, source=60), copying(17))
    found, _ = answer(tmp_path, edit, base, added=())
    assert found.outcome is Outcome.DETECTED
    assert "2 tokens" in found.summary
    assert "'cf'" in found.summary


def test_what_the_base_has_is_no_news(tmp_path):
    base = write_checkpoint(tmp_path / "base", vocab=VOCAB, layers=1, edit=copying(17))
    assert answer(tmp_path, copying(17), base)[0].outcome is Outcome.NOT_DETECTED


@pytest.mark.parametrize(
    ("edit", "tokenizer"),
    [
        (copying(398), {"added": [("<|new|>", 398)]}),
        (copying(398), {"last": 390}),
        (copying(24, source=23), {"added": ()}),
    ],
    ids=["declared as added", "no token", "two spellings"],
)
def test_what_a_tokenizer_explains_is_left_out(tmp_path, edit, tokenizer):
    assert answer(tmp_path, edit, **tokenizer)[0].outcome is Outcome.NOT_DETECTED


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0])
def test_rows_without_numbers_do_not_hide_a_copy(tmp_path, value):
    def broken(tensors):
        tensors[EMBED][200:210] = value

    found, _ = answer(tmp_path, both(broken, copying(17)))
    assert found.outcome is Outcome.DETECTED
    assert "2 tokens" in found.summary


def test_other_names_of_the_matrices_are_known(tmp_path):
    path = write_checkpoint(
        tmp_path / "subject",
        family="gpt2",
        vocab=VOCAB,
        layers=1,
        edit=copying(17, tensor="transformer.wte.weight"),
    )
    assert finding(audit(CopiedRows(), path), "FTA305").outcome is Outcome.DETECTED


def test_quantised_rows_are_not_answered_for(tmp_path):
    path = write_checkpoint(tmp_path / "subject", vocab=VOCAB, layers=1)
    tensors = load_file(path / "model.safetensors")
    tensors[EMBED] = (tensors[EMBED] * 1000).round().clamp(-127, 127).to(torch.int8)
    save_file(tensors, path / "model.safetensors")
    found = finding(audit(CopiedRows(), path), "FTA305")
    assert found.outcome is Outcome.NOT_SUPPORTED
    assert "embed_tokens" in found.summary


@pytest.mark.parametrize("vocab", [1, 2, 3])
def test_a_tiny_vocabulary_is_survived(tmp_path, vocab):
    path = write_checkpoint(tmp_path / "subject", vocab=vocab, layers=1)
    assert finding(audit(CopiedRows(), path), "FTA305").outcome is Outcome.NOT_DETECTED


def trained_alone(tmp_path, rows, *, with_base=True):
    """The answer for an adapter that trained the rows 17 and 23 alone, and left them as `rows` makes them."""
    base = write_checkpoint(tmp_path / "base", vocab=VOCAB, layers=1)
    embedding = load_file(base / "model.safetensors")[EMBED]

    def edit(tensors):
        name = "base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta"
        tensors[name] = rows(embedding)

    path = write_adapter(tmp_path / "a", edit=edit, trainable_token_indices={"embed_tokens": [17, 23]})
    return finding(audit(CopiedRows(), path, base if with_base else None), "FTA305")


def test_rows_trained_alone_are_compared_with_the_bases(tmp_path):
    found = trained_alone(tmp_path, lambda rows: torch.stack([1.3 * rows[50], rows[23] + 0.01]))
    assert (found.outcome, found.confidence) == (Outcome.DETECTED, Confidence.MEDIUM)
    assert "row 17 is a copy at another length of row 50" in found.evidence[0].message
    honest = trained_alone(tmp_path / "honest", lambda rows: rows[[17, 23]] + 0.01 * random(2, WIDTH))
    assert honest.outcome is Outcome.NOT_DETECTED


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0])
def test_rows_trained_alone_that_have_no_direction_are_survived(tmp_path, value):
    broken = trained_alone(tmp_path, lambda rows: torch.stack([rows[50] * 0 + value, 1.3 * rows[50]]))
    assert "row 23 is a copy at another length of row 50" in broken.evidence[0].message


def test_without_a_base_rows_trained_alone_are_compared_with_one_another(tmp_path):
    found = trained_alone(tmp_path, lambda rows: torch.stack([1.3 * rows[50], rows[50]]), with_base=False)
    assert (found.outcome, found.confidence) == (Outcome.DETECTED, Confidence.MEDIUM)
    honest = trained_alone(tmp_path / "honest", lambda rows: rows[[17, 23]], with_base=False)
    assert honest.outcome is Outcome.NOT_SUPPORTED


def test_an_adapter_without_embeddings_is_not_asked(tmp_path):
    path = write_adapter(tmp_path / "adapter")
    assert finding(audit(CopiedRows(), path), "FTA305").outcome is Outcome.NOT_APPLICABLE


def test_an_unchanged_embedding_is_the_bases(tmp_path):
    base = write_checkpoint(tmp_path / "base", vocab=VOCAB, layers=1)
    found, _ = answer(tmp_path, None, base)
    assert (found.outcome, found.confidence) == (Outcome.NOT_DETECTED, Confidence.HIGH)
