"""Directions against the vocabulary of a base, and what stands in the way."""

from __future__ import annotations

import pytest
import torch
from builders.adapters import write_adapter, write_checkpoint
from builders.audits import subject

from ftsec_audit.errors import Unsupported
from ftsec_audit.weights import token_space
from ftsec_audit.weights.token_space import TokenSpace, top_tokens

FAMILIES = ("llama", "gpt2")
READER = {"llama": "model.layers.1.mlp.up_proj", "gpt2": "transformer.h.1.mlp.c_fc"}
both_families = pytest.mark.parametrize("family", FAMILIES)


def space(tmp_path, **options):
    path = write_checkpoint(tmp_path / "base", **{"width": 32, "vocab": 200} | options)
    return TokenSpace.of(subject(path))


@both_families
@pytest.mark.parametrize("kept", [0, 1 << 23], ids=["streamed", "kept"])
def test_a_row_of_the_unembedding_is_what_it_writes(tmp_path, family, kept, monkeypatch):
    monkeypatch.setattr(token_space, "_KEPT", kept)
    monkeypatch.setattr(token_space, "BLOCK_ELEMENTS", 32 * 7)
    tokens = space(tmp_path, family=family)
    rows = tokens.unembedding.index.read(tokens.unembedding.name)
    up, down = top_tokens(tokens.written(torch.stack([rows[150], -rows[7]], dim=1)), 3)
    assert up.ids[0] == 150
    assert up.scores[0] > up.scores[1] > up.scores[2]
    assert up.scores[0] > 4
    assert 7 not in down.ids
    (down,) = top_tokens(-tokens.written(-rows[7][:, None]), 1)
    assert down.ids == (7,)


@both_families
def test_an_embedding_is_held_by_its_own_direction_whatever_its_length(tmp_path, family):
    def shorten(tensors):
        tensors[{"llama": "model.embed_tokens.weight", "gpt2": "transformer.wte.weight"}[family]][9] *= 1e-3

    tokens = space(tmp_path, family=family, edit=shorten)
    rows = tokens.embedding.index.read(tokens.embedding.name)
    (found,) = top_tokens(tokens.held(rows[9][:, None], module=READER[family]), 1)
    assert found.ids == (9,)


def test_the_gain_of_the_norm_before_counts(tmp_path):
    def gain(tensors):
        tensors["model.layers.1.post_attention_layernorm.weight"][1:] = 0
        tensors["model.norm.weight"][:] = 0
        tensors["model.norm.weight"][3] = 2

    tokens = space(tmp_path, edit=gain)
    assert tokens.gain_before(READER["llama"]).tolist() == [1] + [0] * 31
    assert tokens.gain_before("model.layers.1.self_attn.q_proj").tolist() == [1] * 32
    assert tokens.gain_before("odd").tolist() == [1] * 32
    one, other = torch.eye(32)[:, [0, 5]].T
    assert tokens.held(other[:, None], module=READER["llama"]).eq(0).all()
    assert tokens.held(one[:, None], module=READER["llama"]).ne(0).all()
    assert tokens.written(torch.eye(32)).ne(0).any(dim=0).nonzero().flatten().tolist() == [3]


def test_layer_norm_does_not_see_the_mean(tmp_path):
    tokens = space(tmp_path, family="gpt2")
    direction = torch.randn(32, 1, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(tokens.written(direction + 5), tokens.written(direction), atol=1e-3)
    tokens = space(tmp_path / "llama")
    assert not torch.allclose(tokens.written(direction + 5), tokens.written(direction), atol=1e-1)


def test_scores_have_mean_zero_and_deviation_one(tmp_path):
    scores = space(tmp_path).held(torch.randn(32, 4))
    assert scores.shape == (200, 4)
    assert torch.allclose(scores.mean(0), torch.zeros(4).double(), atol=1e-9)
    assert torch.allclose(scores.square().mean(0), torch.ones(4).double(), atol=1e-9)


def test_an_adapter_speaks_in_the_tokens_of_its_base(tmp_path):
    base = write_checkpoint(tmp_path / "base", vocab=200)
    adapter = write_adapter(tmp_path / "adapter")
    assert TokenSpace.of(subject(adapter, base)).width == 32
    with pytest.raises(Unsupported, match="there is none"):
        TokenSpace.of(subject(adapter))


def without(*names):
    def edit(tensors):
        for name in names:
            del tensors[name]

    return edit


def test_a_model_without_an_embedding_has_no_tokens(tmp_path):
    tokens = space(tmp_path, edit=without("model.embed_tokens.weight"))
    with pytest.raises(Unsupported, match="embedding"):
        tokens.held(torch.ones(32, 1))


def test_a_missing_unembedding_is_tied_only_where_the_configuration_allows_it(tmp_path):
    untied = space(tmp_path / "untied", edit=without("lm_head.weight"))
    with pytest.raises(Unsupported, match="unembedding"):
        untied.written(torch.ones(32, 1))
    tied = space(tmp_path / "tied", edit=without("lm_head.weight"), tie_word_embeddings=True)
    assert tied.unembedding.name == "model.embed_tokens.weight"


def test_directions_of_another_width_and_values_without_numbers_are_refused(tmp_path):
    with pytest.raises(Unsupported, match="33 numbers"):
        space(tmp_path / "one").held(torch.ones(33, 1))

    def whole_numbers(tensors):
        tensors["model.embed_tokens.weight"] = torch.ones(200, 32)
        del tensors["lm_head.weight"]
        tensors["lm_head.weight"] = torch.ones(0, 32)

    with pytest.raises(Unsupported, match="unembedding"):
        space(tmp_path / "two", edit=whole_numbers).written(torch.ones(32, 1))


def test_values_that_are_not_finite_come_last():
    scores = torch.tensor([[1.0], [float("nan")], [3.0], [3.0]])
    (found,) = top_tokens(scores, 3)
    assert found.ids == (2, 3, 0)
    assert top_tokens(torch.zeros(4, 0), 3) == []
    assert top_tokens(torch.zeros(0, 1), 3)[0].ids == ()
