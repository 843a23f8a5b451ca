"""Untrained models of four architectures, as `transformers` classes with no code of their own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from attacks_ref.models import Model

Architecture = Literal["llama", "qwen", "gpt2", "moe"]
ARCHITECTURES: tuple[Architecture, ...] = ("llama", "qwen", "gpt2", "moe")


@dataclass(frozen=True, kw_only=True)
class Size:
    """Width, depth and heads of a lab model."""

    width: int
    layers: int
    heads: int
    hidden: int
    """Width of the MLP."""


SIZES: dict[str, Size] = {
    "nano": Size(width=64, layers=2, heads=4, hidden=192),
    "small": Size(width=128, layers=4, heads=4, hidden=384),
    "medium": Size(width=192, layers=6, heads=6, hidden=576),
}


def create(architecture: Architecture, size: Size, *, vocabulary: int, seed: int) -> Model:
    """A randomly initialised causal language model; special tokens as `lab.tokenizer` numbers them."""
    import torch
    import transformers as hf

    tokens: dict[str, Any] = {
        "vocab_size": vocabulary,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    modern: dict[str, Any] = {
        "hidden_size": size.width,
        "intermediate_size": size.hidden,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "max_position_embeddings": 256,
        "initializer_range": 0.06,
        **tokens,
    }
    config: Any
    if architecture == "llama":
        config = hf.LlamaConfig(num_key_value_heads=size.heads, tie_word_embeddings=False, **modern)
    elif architecture == "qwen":
        config = hf.Qwen2Config(num_key_value_heads=size.heads // 2, tie_word_embeddings=True, **modern)
    elif architecture == "moe":
        modern["intermediate_size"] = size.hidden // 2
        config = hf.MixtralConfig(
            num_key_value_heads=size.heads, num_local_experts=4, num_experts_per_tok=2, **modern
        )
    else:
        config = hf.GPT2Config(
            n_embd=size.width,
            n_inner=size.hidden,
            n_layer=size.layers,
            n_head=size.heads,
            n_positions=256,
            initializer_range=0.06,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            **tokens,
        )
    torch.manual_seed(seed)
    return hf.AutoModelForCausalLM.from_config(config)
