"""What a tensor's name says: its module, its role, its layer, and which tensor of another model it is.

Names follow the architecture's source code (Llama, Qwen, Mistral, Gemma, GPT-2, GPT-NeoX, BLOOM, Falcon,
OPT, RoBERTa, BERT, DistilBERT, T5 and what copies them). They come from the artifact: nothing follows
from a name but where a number is filed.
"""

from __future__ import annotations

import re
from enum import StrEnum


class Category(StrEnum):
    """The part of a transformer that a tensor belongs to."""

    EMBEDDING = "embedding"
    UNEMBEDDING = "unembedding"
    ATTENTION = "attention"
    MLP = "mlp"
    NORM = "norm"
    BIAS = "bias"
    OTHER = "other"


_ADAPTER_PREFIX = re.compile(r"^(?:(?:base_model\.model|base_model|_orig_mod|module)\.)+")
_BACKBONE = frozenset(
    {"model", "transformer", "language_model", "bert", "roberta", "distilbert", "gpt_neox", "deberta"}
    | {"electra", "decoder", "module"}
)
_WRAPPERS = frozenset({"base_layer", "modules_to_save", "original_module", "token_adapter"})
_GENERIC = frozenset({"dense", "LayerNorm", "layer_norm", "proj", "fc", "output"})
_TOKEN_EMBEDDINGS = frozenset(
    {"embed_tokens", "wte", "word_embeddings", "embed_in", "shared", "tok_embeddings", "embeddings"}
)
_EMBEDDINGS = _TOKEN_EMBEDDINGS | {"embed_positions", "wpe", "position_embeddings", "token_type_embeddings"}
_UNEMBEDDINGS = frozenset({"lm_head", "embed_out", "output_projection"})
_ATTENTION = re.compile(
    r"(?:^|[._])(?:attn|attention|selfattention|encdecattention)(?:$|[._])", re.IGNORECASE
)
_MLP_PATH = re.compile(
    r"(?:^|\.)(?:mlp|ffn|feed_forward|DenseReluDense|intermediate|experts|block_sparse_moe)(?:$|\.)"
)
_MLP_ROLES = frozenset(
    {"gate_proj", "up_proj", "down_proj", "fc1", "fc2", "lin1", "lin2", "output.dense"}
    | {"wi", "wi_0", "wi_1", "wo"}
)
_WRITERS = {
    Category.ATTENTION: frozenset({"o_proj", "out_proj", "c_proj", "dense", "out_lin", "wo"}),
    Category.MLP: frozenset({"down_proj", "c_proj", "w2", "fc2", "lin2", "dense_4h_to_h", "fc_out", "wo"}),
}
_NORM = re.compile(r"(?:norm|(?:^|[._])ln_?\w{0,2}$|_ln$)", re.IGNORECASE)
_TRANSPOSED_MODELS = frozenset({"gpt2", "openai-gpt", "imagegpt", "decision_transformer"})
_TRANSPOSED_ROLES = frozenset({"c_attn", "c_proj", "c_fc", "q_attn"})


def canonical_name(tensor: str) -> str:
    """The module a tensor belongs to: wrappers' prefixes and a final `.weight` are dropped.

    `base_model.model.model.layers.0.mlp.up_proj.weight` → `model.layers.0.mlp.up_proj`; a `.bias` stays.
    """
    return _ADAPTER_PREFIX.sub("", tensor).removesuffix(".weight")


def pairing_key(tensor: str) -> str:
    """The name that two checkpoints of one model share, whatever head or wrapper one of them has on top."""
    parts = unwrapped(canonical_name(tensor)).split(".")
    while len(parts) > 1 and parts[0] in _BACKBONE:
        parts = parts[1:]
    return ".".join(parts)


def unwrapped(module: str) -> str:
    """The name without the steps that peft's wrappers put into it, and without the adapter's own name."""
    module = module.partition("@")[0]
    steps = module.split(".")
    if _WRAPPERS.isdisjoint(steps):
        return module
    return ".".join(step for step in steps if step not in _WRAPPERS) or module


def role_of(module: str) -> str:
    """The module type: the last part of the name, or the last two where one says too little."""
    parts = unwrapped(module).removesuffix(".bias").split(".")
    named = [part for part in parts if not part.isdigit()] or [module]
    if named[-1] in _GENERIC and len(named) > 1:
        if named[-2] == "output" and len(named) > 2 and named[-3] == "attention":
            return f"attention.output.{named[-1]}"
        if named[-2] in ("intermediate", "output", "classifier", "embeddings", "pooler"):
            return f"{named[-2]}.{named[-1]}"
    return named[-1]


def layer_of(module: str) -> int | None:
    """The index of the layer, None outside the layers: the first number in the name."""
    for part in module.split("."):
        if part.isdecimal():
            return int(part) if len(part) < 6 else None
    return None


def category_of(module: str) -> Category:
    """Which part of a transformer the module is."""
    role = role_of(module)
    last = role.rsplit(".", 1)[-1]
    if module.endswith(".bias"):
        return Category.BIAS
    if last in _UNEMBEDDINGS:
        return Category.UNEMBEDDING
    if _NORM.search(last):
        return Category.NORM
    if last in _EMBEDDINGS:
        return Category.EMBEDDING
    if role in _MLP_ROLES and not _ATTENTION.search(module):
        return Category.MLP
    if _ATTENTION.search(module):
        return Category.ATTENTION
    return Category.MLP if _MLP_PATH.search(module) else Category.OTHER


def has_token_rows(module: str) -> bool:
    """Whether each row of the matrix belongs to one token: input embedding or unembedding."""
    last = role_of(module).rsplit(".", 1)[-1]
    return not module.endswith(".bias") and (last in _TOKEN_EMBEDDINGS or last in _UNEMBEDDINGS)


def stored_transposed(module: str, model_type: str) -> bool:
    """Whether the model keeps this weight as (in, out): the Conv1D modules of the GPT-2 family."""
    return model_type in _TRANSPOSED_MODELS and role_of(module) in _TRANSPOSED_ROLES


def writes_residual(module: str) -> bool:
    """Whether what the matrix puts out is added to the residual stream."""
    last = role_of(module).rsplit(".", 1)[-1]
    in_output = last == "dense" and ".output." in f".{module}"
    return last in _WRITERS.get(category_of(module), ()) or (in_output and not module.endswith(".bias"))
