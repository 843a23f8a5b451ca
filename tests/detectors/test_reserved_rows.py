"""FTA306: of tokens kept in reserve the one whose row was trained is named, and no other."""

from __future__ import annotations

import json

import pytest
import torch
from builders.adapters import write_adapter, write_checkpoint
from builders.audits import audit, finding
from safetensors.torch import load_file, save_file

from detectors.reserved_rows import ReservedRows
from ftsec_audit.types import Confidence, Outcome, Severity

EMBED, HEAD = "model.embed_tokens.weight", "lm_head.weight"
VOCAB, WIDTH, FIRST, COUNT = 400, 32, 300, 64
SPELLING = "<|reserved_special_token_{}|>"


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def tuning(tensors):
    """Every row that text contains moves, and all of them a little way together."""
    for number, name in enumerate((EMBED, HEAD)):
        step = 0.02 * random(VOCAB, WIDTH, seed=number)
        step[FIRST : FIRST + COUNT] = 0.0
        tensors[name] = 0.99 * tensors[name] + step + 0.002


def trained(*rows, tensor=EMBED, size=4.0):
    def edit(tensors):
        for row in rows:
            tensors[tensor][row] += size * 0.02 * random(WIDTH, seed=row)

    return edit


def both(*edits):
    def edit(tensors):
        for one in edits:
            one(tensors)

    return edit


def write_tokenizer(path, *, spelling=SPELLING, count=COUNT, added=True):
    names = {FIRST + i: spelling.format(i) for i in range(count)}
    words = {f"▁word{i}": i for i in range(VOCAB) if i not in names}
    tokens = [{"id": i, "content": text, "special": True} for i, text in names.items()]
    vocabulary = words if added else words | {text: i for i, text in names.items()}
    document = {"model": {"type": "BPE", "vocab": vocabulary}, "added_tokens": tokens if added else []}
    (path / "tokenizer.json").write_text(json.dumps(document))


def answer(tmp_path, edit=None, base=None, *, config=None, width=WIDTH, **tokenizer):
    path = write_checkpoint(tmp_path / "subject", vocab=VOCAB, layers=1, width=width, edit=edit)
    write_tokenizer(path, **tokenizer)
    for name, content in (config or {}).items():
        (path / name).write_text(json.dumps(content))
    result = audit(ReservedRows(), path, base)
    return finding(result, "FTA306"), result


@pytest.fixture
def base(tmp_path):
    return write_checkpoint(tmp_path / "base", vocab=VOCAB, layers=1)


@pytest.mark.parametrize("tensor", [EMBED, HEAD])
@pytest.mark.parametrize("added", [True, False], ids=["added", "of the vocabulary"])
def test_a_trained_row_is_named(tmp_path, tensor, added):
    found, result = answer(tmp_path, both(tuning, trained(FIRST + 42, tensor=tensor)), added=added)
    assert (found.outcome, found.severity, found.confidence) == (
        Outcome.DETECTED,
        Severity.MEDIUM,
        Confidence.LOW,
    )
    assert found.summary.startswith("1 of 64 reserved tokens")
    assert found.evidence[0].excerpt == SPELLING.format(42)
    assert found.evidence[0].location.tensor == tensor.removesuffix(".weight")
    assert [(lead.kind, lead.value) for lead in result.leads] == [("token", SPELLING.format(42))]


def test_beside_the_base_it_is_more_of_a_fact(tmp_path, base):
    found, _ = answer(tmp_path, both(tuning, trained(FIRST + 42)), base)
    assert (found.outcome, found.confidence) == (Outcome.DETECTED, Confidence.MEDIUM)
    assert "in the base" in found.evidence[0].message


def test_what_the_base_has_trained_is_no_news(tmp_path):
    used = trained(FIRST + 42)
    base = write_checkpoint(tmp_path / "base", vocab=VOCAB, layers=1, edit=used)
    assert answer(tmp_path / "kept", both(used, tuning), base)[0].outcome is Outcome.NOT_DETECTED
    found, _ = answer(tmp_path / "more", both(used, tuning, trained(FIRST + 5)), base)
    assert found.summary.startswith("1 of 64")
    assert SPELLING.format(5) in found.summary


@pytest.mark.parametrize("seed", range(5))
def test_siblings_that_were_left_alone_are_no_accusation(tmp_path, base, seed):
    def fresh(tensors):
        tensors[EMBED][FIRST : FIRST + COUNT] = 0.02 * random(COUNT, WIDTH, seed=seed)

    assert answer(tmp_path / "alone", both(tuning, fresh))[0].outcome is Outcome.NOT_DETECTED
    assert answer(tmp_path / "beside", both(tuning, fresh), base)[0].outcome is Outcome.NOT_DETECTED


@pytest.mark.parametrize("value", [0.0, 0.3], ids=["zero", "all equal"])
def test_siblings_may_be_equal_bit_for_bit(tmp_path, value):
    def flat(tensors):
        tensors[EMBED][FIRST : FIRST + COUNT] = value

    assert answer(tmp_path / "flat", flat)[0].outcome is Outcome.NOT_DETECTED
    found, _ = answer(tmp_path / "one", both(flat, trained(FIRST + 3)))
    assert found.summary.startswith("1 of 64")


def test_a_row_of_the_usual_length_that_points_where_ordinary_rows_do_is_seen(tmp_path):
    def leaning(tensors):
        tensors[EMBED] += 0.05
        tensors[EMBED][FIRST : FIRST + COUNT] -= 0.05
        lean = tensors[EMBED][7].clone()
        tensors[EMBED][FIRST + 9] = lean / lean.norm() * tensors[EMBED][FIRST + 10].norm()

    found, _ = answer(tmp_path, leaning, width=256)
    assert found.summary.startswith("1 of 64")
    assert found.evidence[0].excerpt == SPELLING.format(9)


@pytest.mark.parametrize(
    "config",
    [
        {"tokenizer_config.json": {"chat_template": f"a{SPELLING.format(42)}b"}},
        {"tokenizer_config.json": {"eos_token": SPELLING.format(42)}},
        {"generation_config.json": {"eos_token_id": [2, FIRST + 42]}},
    ],
    ids=["template", "role", "id"],
)
def test_what_is_used_openly_is_listed_not_reported(tmp_path, config):
    found, result = answer(tmp_path / "open", both(tuning, trained(FIRST + 42)), config=config)
    assert found.outcome is Outcome.NOT_DETECTED
    assert SPELLING.format(42) in found.summary
    assert not result.leads
    found, _ = answer(tmp_path / "more", both(tuning, trained(FIRST + 42, FIRST + 4)), config=config)
    assert found.outcome is Outcome.DETECTED
    assert found.summary.startswith(f"1 of 64 reserved tokens look trained: {SPELLING.format(4)!r}")


@pytest.mark.parametrize(
    "spelling",
    (
        *("<unused{}>", "[unused{}]", "<|extra_{}|>", "[control_{}]", "<SPECIAL_{}>", ">>UNUSED_{}<<"),
        *("<|placeholder{}|>", "<｜place▁holder▁no▁{}｜>", "<|dummy_{}|>", "<reserved_{}>"),
    ),
)
def test_the_spellings_of_reserve_are_known(tmp_path, spelling):
    found, _ = answer(tmp_path, trained(FIRST + 42), spelling=spelling)
    assert found.outcome is Outcome.DETECTED


@pytest.mark.parametrize("spelling", ["<extra_id_{}>", "<0x{}>", "▁special{}", "<loc{}>"])
def test_series_in_use_are_not_asked(tmp_path, spelling):
    found, _ = answer(tmp_path, trained(FIRST + 42), spelling=spelling)
    assert found.outcome is Outcome.NOT_APPLICABLE
    assert "no series" in found.summary


def test_too_few_siblings_are_said(tmp_path):
    found, _ = answer(tmp_path, trained(FIRST + 2), count=15)
    assert found.outcome is Outcome.NOT_APPLICABLE
    assert "has 15, 16 are needed" in found.summary
    assert answer(tmp_path / "more", trained(FIRST + 2, size=20.0), count=16)[0].outcome is Outcome.DETECTED


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_rows_without_numbers_do_not_hide_a_trained_one(tmp_path, value):
    def broken(tensors):
        tensors[EMBED][FIRST + 5] = value

    found, _ = answer(tmp_path, both(broken, trained(FIRST + 42)))
    assert SPELLING.format(42) in found.summary


def test_quantised_rows_are_not_answered_for(tmp_path):
    path = write_checkpoint(tmp_path / "subject", vocab=VOCAB, layers=1)
    write_tokenizer(path)
    tensors = load_file(path / "model.safetensors")
    tensors[EMBED] = (tensors[EMBED] * 1000).round().clamp(-127, 127).to(torch.int8)
    save_file(tensors, path / "model.safetensors")
    assert finding(audit(ReservedRows(), path), "FTA306").outcome is Outcome.NOT_SUPPORTED


def test_an_adapter_without_embeddings_is_not_asked(tmp_path):
    path = write_adapter(tmp_path / "adapter")
    assert finding(audit(ReservedRows(), path), "FTA306").outcome is Outcome.NOT_APPLICABLE


def test_an_unchanged_embedding_is_the_bases(tmp_path, base):
    assert answer(tmp_path, None, base)[0].outcome is Outcome.NOT_DETECTED
