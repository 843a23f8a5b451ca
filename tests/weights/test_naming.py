"""Names of the common architectures, read right."""

from __future__ import annotations

import pytest

from ftsec_audit.weights.naming import (
    Category,
    canonical_name,
    category_of,
    has_token_rows,
    layer_of,
    pairing_key,
    role_of,
    stored_transposed,
)

NAMES = [
    ("model.layers.17.self_attn.q_proj", "q_proj", 17, Category.ATTENTION),
    ("model.layers.3.mlp.down_proj", "down_proj", 3, Category.MLP),
    ("model.layers.3.mlp.experts.11.up_proj", "up_proj", 3, Category.MLP),
    ("model.layers.3.input_layernorm", "input_layernorm", 3, Category.NORM),
    ("model.layers.3.self_attn.q_norm", "q_norm", 3, Category.NORM),
    ("model.norm", "norm", None, Category.NORM),
    ("model.embed_tokens", "embed_tokens", None, Category.EMBEDDING),
    ("lm_head", "lm_head", None, Category.UNEMBEDDING),
    ("transformer.wte", "wte", None, Category.EMBEDDING),
    ("transformer.h.0.attn.c_attn", "c_attn", 0, Category.ATTENTION),
    ("transformer.h.0.attn.c_attn.bias", "c_attn", 0, Category.BIAS),
    ("transformer.h.11.mlp.c_proj", "c_proj", 11, Category.MLP),
    ("transformer.h.11.ln_1", "ln_1", 11, Category.NORM),
    ("transformer.ln_f", "ln_f", None, Category.NORM),
    ("transformer.h.4.attn.attention.q_proj", "q_proj", 4, Category.ATTENTION),
    ("transformer.word_embeddings", "word_embeddings", None, Category.EMBEDDING),
    ("transformer.h.4.self_attention.query_key_value", "query_key_value", 4, Category.ATTENTION),
    ("transformer.h.4.self_attention.dense", "dense", 4, Category.ATTENTION),
    ("transformer.h.4.mlp.dense_h_to_4h", "dense_h_to_4h", 4, Category.MLP),
    ("gpt_neox.embed_in", "embed_in", None, Category.EMBEDDING),
    ("embed_out", "embed_out", None, Category.UNEMBEDDING),
    ("gpt_neox.layers.5.attention.query_key_value", "query_key_value", 5, Category.ATTENTION),
    ("model.decoder.layers.5.self_attn.out_proj", "out_proj", 5, Category.ATTENTION),
    ("model.decoder.layers.5.fc2", "fc2", 5, Category.MLP),
    ("roberta.encoder.layer.2.attention.self.query", "query", 2, Category.ATTENTION),
    ("roberta.encoder.layer.2.attention.output.dense", "attention.output.dense", 2, Category.ATTENTION),
    ("roberta.encoder.layer.2.intermediate.dense", "intermediate.dense", 2, Category.MLP),
    ("roberta.encoder.layer.2.output.dense", "output.dense", 2, Category.MLP),
    ("roberta.encoder.layer.2.output.LayerNorm", "output.LayerNorm", 2, Category.NORM),
    ("distilbert.transformer.layer.5.attention.q_lin", "q_lin", 5, Category.ATTENTION),
    ("distilbert.transformer.layer.5.ffn.lin2", "lin2", 5, Category.MLP),
    ("encoder.block.7.layer.0.SelfAttention.q", "q", 7, Category.ATTENTION),
    ("decoder.block.7.layer.1.EncDecAttention.v", "v", 7, Category.ATTENTION),
    ("encoder.block.7.layer.1.DenseReluDense.wi_0", "wi_0", 7, Category.MLP),
    ("classifier.dense", "classifier.dense", None, Category.OTHER),
]


@pytest.mark.parametrize(("module", "role", "layer", "category"), NAMES)
def test_role_layer_and_category(module: str, role: str, layer: int | None, category: Category) -> None:
    assert (role_of(module), layer_of(module), category_of(module)) == (role, layer, category)


@pytest.mark.parametrize("name", ["transformer.wte", "lm_head", "model.embed_tokens", "shared"])
def test_rows_of_embeddings_are_tokens(name: str) -> None:
    assert has_token_rows(name)


@pytest.mark.parametrize(
    "name", ["transformer.wpe", "lm_head.bias", "model.norm", "model.layers.0.mlp.up_proj"]
)
def test_rows_of_other_tensors_are_not(name: str) -> None:
    assert not has_token_rows(name)


def test_wrappers_are_stripped() -> None:
    assert (
        canonical_name("base_model.model.model.layers.0.mlp.up_proj.weight") == "model.layers.0.mlp.up_proj"
    )
    assert canonical_name("module._orig_mod.lm_head.bias") == "lm_head.bias"


def test_a_backbone_and_the_model_around_it_share_keys() -> None:
    assert pairing_key("roberta.encoder.layer.0.output.dense.weight") == "encoder.layer.0.output.dense"
    assert pairing_key("h.0.attn.c_attn.weight") == pairing_key("transformer.h.0.attn.c_attn.weight")
    assert pairing_key("model.language_model.layers.1.mlp.up_proj.weight") == "layers.1.mlp.up_proj"
    assert pairing_key("encoder.block.0.layer.0.SelfAttention.q.weight") != pairing_key(
        "decoder.block.0.layer.0.SelfAttention.q.weight"
    )


def test_only_the_gpt2_family_stores_weights_transposed() -> None:
    assert stored_transposed("transformer.h.0.attn.c_attn", "gpt2")
    assert not stored_transposed("transformer.h.0.attn.c_attn", "gpt_bigcode")
    assert not stored_transposed("transformer.wte", "gpt2")
    assert not stored_transposed("model.layers.0.mlp.up_proj", "llama")


def test_hostile_numbers_are_no_layers() -> None:
    assert layer_of("layers." + "9" * 5000 + ".q") is None
    assert layer_of("layers.²." + "q") is None
