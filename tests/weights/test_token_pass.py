"""Single tokens through the layers, against the model classes that define them."""

from __future__ import annotations

import json

import pytest
import torch
import transformers
from builders.audits import subject
from safetensors.torch import load_file, save_file

from ftsec_audit.errors import Unsupported
from ftsec_audit.weights import token_pass
from ftsec_audit.weights.token_pass import TokenPass
from ftsec_audit.weights.token_space import TokenSpace

SIZES = {"vocab_size": 40, "num_hidden_layers": 2, "hidden_size": 16, "num_attention_heads": 4}
LLAMA = {**SIZES, "intermediate_size": 24, "num_key_value_heads": 2}
MODELS = {
    "llama": lambda: transformers.LlamaConfig(**LLAMA),
    "qwen2": lambda: transformers.Qwen2Config(**LLAMA, tie_word_embeddings=True),
    "qwen3": lambda: transformers.Qwen3Config(**LLAMA, head_dim=8),
    "mixtral": lambda: transformers.MixtralConfig(**LLAMA, num_local_experts=3, num_experts_per_tok=2),
    "gpt2": lambda: transformers.GPT2Config(vocab_size=40, n_layer=2, n_embd=16, n_head=4, n_positions=8),
}
SEEN = ("q_proj", "v_proj", "o_proj", "up_proj", "down_proj", "c_attn", "c_fc", "c_proj")


def saved(kind, folder):
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(MODELS[kind]()).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    return model


def space(folder):
    return TokenSpace.of(subject(folder))


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("chunk", [7, 1024])
def test_every_module_receives_what_it_does_in_the_model(kind, chunk, tmp_path, monkeypatch):
    monkeypatch.setattr(token_pass, "_CHUNK", chunk)
    monkeypatch.setattr(token_pass, "BLOCK_ELEMENTS", 100)
    model, seen = saved(kind, tmp_path), {}
    for name, module in model.named_modules():
        if name.endswith(SEEN):
            module.register_forward_pre_hook(
                lambda _, inputs, name=name: seen.update({name: inputs[0].detach()})
            )
    with torch.no_grad():
        model(input_ids=torch.arange(40)[:, None])
    one = TokenPass(space(tmp_path))
    assert len(seen) > 4
    for name, inputs in seen.items():
        pieces = list(one.received(name))
        assert [start for start, _ in pieces] == list(range(0, 40, chunk))
        received = torch.cat([piece for _, piece in pieces])
        assert torch.allclose(received, inputs.reshape(40, -1), atol=1e-4, rtol=1e-4), name
        direction = torch.randn(received.shape[1], 2)
        assert torch.allclose(one.along(name, direction), received @ direction, atol=1e-4)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("chunk", [7, 1024])
def test_among_others_attention_brings_the_mean_value(kind, chunk, tmp_path, monkeypatch):
    """As if the text were the whole vocabulary and everything looked everywhere alike; positions aside."""
    model = saved(kind, tmp_path)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("q_proj.weight", "k_proj.weight")) or "wpe" in name:
                parameter.zero_()
            if "c_attn" in name:
                parameter[..., :32].zero_()
    model.config.use_cache = False
    model.save_pretrained(tmp_path)
    name, seen = {"llama": "model.layers.1.mlp.down_proj", "gpt2": "transformer.h.1.mlp.c_proj"}[kind], {}
    dict(model.named_modules())[name].register_forward_pre_hook(lambda _, inputs: seen.update(x=inputs[0][0]))
    everywhere = torch.zeros(1, 1, 40, 40)
    if kind == "gpt2":
        model.config.n_positions, model.transformer.wpe = 40, torch.nn.Embedding(40, 16)
        torch.nn.init.zeros_(model.transformer.wpe.weight)
    with torch.no_grad():
        model(input_ids=torch.arange(40)[None], attention_mask=everywhere)
    monkeypatch.setattr(token_pass, "_CHUNK", 40)
    one = TokenPass(space(tmp_path), own=0.0)
    one.along(name, torch.ones(seen["x"].shape[1], 1))
    monkeypatch.setattr(token_pass, "_CHUNK", chunk)
    received = torch.cat([piece for _, piece in one.received(name)])
    assert torch.allclose(received, seen["x"], atol=1e-4, rtol=1e-4)
    direction = torch.nn.functional.normalize(torch.randn(received.shape[1], 2), dim=0)
    monkeypatch.setattr(token_pass, "_CHUNK", 40)
    centred = received - received.mean(dim=0)
    expected = centred @ direction / centred.norm(dim=1, keepdim=True)
    assert torch.allclose(one.cosines(name, direction), expected, atol=1e-4)


def test_where_positions_are_learned_it_stands_at_one_or_at_their_mean(tmp_path, monkeypatch):
    monkeypatch.setattr(token_pass, "BLOCK_ELEMENTS", 40)
    model = saved("gpt2", tmp_path)
    embeddings, positions = model.transformer.wte.weight, model.transformer.wpe.weight
    norm, direction = model.transformer.h[0].ln_1, torch.randn(16, 2)
    for at, position in ((0, positions[0]), (3, positions[3]), (None, positions.mean(0))):
        found = TokenPass(space(tmp_path), at=at).along("transformer.h.0.attn.c_attn", direction)
        assert torch.allclose(found, norm(embeddings + position) @ direction, atol=1e-4)


def test_an_expert_receives_the_hidden_layer_of_its_own(tmp_path):
    model = saved("mixtral", tmp_path)
    one = TokenPass(space(tmp_path))
    prefix = "model.layers.0.block_sparse_moe.experts.1"
    read = torch.cat([piece for _, piece in one.received(f"{prefix}.w1")])
    expert = model.model.layers[0].mlp.experts
    gate, up = (read @ expert.gate_up_proj[1].detach().mT).chunk(2, dim=1)
    received = torch.cat([piece for _, piece in one.received(f"{prefix}.w2")])
    assert torch.allclose(received, torch.nn.functional.silu(gate) * up, atol=1e-4)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("model_type", "falcon", "falcon"),
        ("model_type", None, "unknown"),
        ("hidden_act", "sinus", "sinus"),
        ("num_key_value_heads", 3, "share"),
        ("num_attention_heads", None, "num_attention_heads"),
        ("num_attention_heads", 10**9, "num_attention_heads"),
    ],
)
def test_what_is_not_known_is_not_guessed(key, value, message, tmp_path):
    saved("llama", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {key: value}))
    with pytest.raises(Unsupported, match=message):
        TokenPass(space(tmp_path)).along("model.layers.1.mlp.down_proj", torch.ones(24, 1))


@pytest.mark.parametrize(
    "module", ["lm_head", "model.layers.x.mlp", "3.mlp", "model.layers.1234567.mlp.up_proj"]
)
def test_only_modules_of_numbered_layers_are_reached(module, tmp_path):
    saved("llama", tmp_path)
    with pytest.raises(Unsupported, match="no numbered layer"):
        TokenPass(space(tmp_path)).along(module, torch.ones(16, 1))


def test_directions_and_work_have_to_fit(tmp_path, monkeypatch):
    saved("llama", tmp_path)
    one = TokenPass(space(tmp_path))
    with pytest.raises(Unsupported, match="24 numbers, not 16"):
        one.along("model.layers.0.mlp.down_proj", torch.ones(16, 1))
    with pytest.raises(Unsupported, match="24 numbers, not 16"):
        one.cosines("model.layers.0.mlp.down_proj", torch.ones(16, 1))
    monkeypatch.setattr(token_pass, "_MOST_WORK", 1000)
    with pytest.raises(Unsupported, match="too long"):
        one.along("model.layers.0.mlp.down_proj", torch.ones(24, 1))


@pytest.mark.parametrize(
    ("kind", "name", "shape", "message"),
    [
        ("llama", "model.layers.0.mlp.up_proj.weight", (24, 17), "up_proj has the shape"),
        ("llama", "model.layers.0.self_attn.v_proj.weight", (6, 16), "share"),
        ("llama", "model.layers.0.input_layernorm.weight", (1,), "length 16"),
        ("gpt2", "transformer.wpe.weight", (8, 1), "widths"),
        ("gpt2", "transformer.h.0.mlp.c_fc.bias", (3,), "length 64"),
    ],
)
def test_shapes_that_do_not_fit_each_other_are_refused(kind, name, shape, message, tmp_path):
    saved(kind, tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    assert name in tensors
    save_file(tensors | {name: torch.ones(shape)}, tmp_path / "model.safetensors")
    path, width = {"llama": ("model.layers.1.mlp.down_proj", 24), "gpt2": ("transformer.h.1.mlp.c_proj", 64)}[
        kind
    ]
    with pytest.raises(Unsupported, match=message):
        TokenPass(space(tmp_path)).along(path, torch.ones(width, 1))
