"""Small adapters and checkpoints on disk, in the layouts that peft and transformers write.

Everything is drawn from one seeded generator and written with safetensors and JSON alone, so a fixture
costs a millisecond. The base of an adapter is `write_checkpoint` of the same family, layers, width and
vocab; the first is addressed by module names of the second.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

Tensors = dict[str, torch.Tensor]
Edit = Callable[[Tensors], Tensors | None]
"""Changes the tensors in place, or returns other ones, just before they are written."""

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
}


def modules(family: str, layers: int, width: int) -> Iterator[tuple[str, int, int]]:
    """(module path, out_features, in_features) of every linear map of every layer."""
    shapes = {
        "llama": {
            "self_attn.q_proj": (width, width),
            "self_attn.k_proj": (width // 2, width),
            "self_attn.v_proj": (width // 2, width),
            "self_attn.o_proj": (width, width),
            "mlp.gate_proj": (2 * width, width),
            "mlp.up_proj": (2 * width, width),
            "mlp.down_proj": (width, 2 * width),
        },
        "gpt2": {
            "attn.c_attn": (3 * width, width),
            "attn.c_proj": (width, width),
            "mlp.c_fc": (4 * width, width),
            "mlp.c_proj": (width, 4 * width),
        },
    }[family]
    prefix = {"llama": "model.layers", "gpt2": "transformer.h"}[family]
    for layer in range(layers):
        for path, (rows, columns) in shapes.items():
            yield f"{prefix}.{layer}.{path}", rows, columns


def write_adapter(
    path: Path,
    *,
    method: str = "lora",
    rank: int = 4,
    alpha: float = 8,
    targets: tuple[str, ...] | None = None,
    family: str = "llama",
    layers: int = 4,
    width: int = 32,
    seed: int = 0,
    dtype: str = "F32",
    edit: Edit | None = None,
    **config_overrides: Any,
) -> Path:
    """Write `adapter_config.json` and `adapter_model.safetensors` into `path`; returns `path`.

    `method` is one of METHODS; an override of None is written as null. `targets` defaults to the
    attention inputs of the family. Each loads with peft, except LoHa and LoKr on the gpt2 family,
    whose Conv1D modules peft does not adapt that way.
    """
    rng = np.random.default_rng(seed)
    targets = targets or {"llama": ("q_proj", "v_proj"), "gpt2": ("c_attn",)}[family]
    tensors: Tensors = {}
    if method in _PROMPTS:
        tensors["prompt_embeddings"] = _normal(rng, *_PROMPTS[method](family, layers, width))
    else:
        if method == "vera":
            adapted = [m for m in modules(family, 1, width) if m[0].rsplit(".", 1)[-1] in targets]
            tensors["base_model.vera_A"] = _normal(rng, rank, max(columns for _, _, columns in adapted))
            tensors["base_model.vera_B"] = _normal(rng, max(rows for _, rows, _ in adapted), rank)
        for name, rows, columns in modules(family, layers, width):
            if name.rsplit(".", 1)[-1] in targets:
                for suffix, tensor in _MODULE_TENSORS[method](rng, rows, columns, rank).items():
                    tensors[f"base_model.model.{name}.{suffix}"] = tensor
    config = _adapter_config(method, rank, alpha, targets, family) | config_overrides
    path.mkdir(parents=True, exist_ok=True)
    (path / "adapter_config.json").write_text(json.dumps(config, indent=2))
    _save(tensors, path / "adapter_model.safetensors", dtype, edit)
    return path


def write_checkpoint(
    path: Path,
    *,
    family: str = "llama",
    layers: int = 4,
    width: int = 32,
    vocab: int = 64,
    seed: int = 0,
    shards: int = 1,
    dtype: str = "F32",
    edit: Edit | None = None,
    **config_overrides: Any,
) -> Path:
    """Write `config.json` and `model.safetensors` (or shards and their index); returns `path`.

    The result loads with `transformers.AutoModelForCausalLM`. In the gpt2 family linear weights are
    Conv1D: (in_features, out_features).
    """
    tensors = _checkpoint_tensors(np.random.default_rng(seed), family, layers, width, vocab)
    config = _model_config(family, layers, width, vocab, dtype) | config_overrides
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(json.dumps(config, indent=2))
    tensors = {
        name: tensor.to(DTYPES[dtype]) if tensor.dtype is torch.float32 else tensor
        for name, tensor in _edited(tensors, edit).items()
    }
    if shards == 1:
        _save(tensors, path / "model.safetensors")
        return path
    names, weight_map = sorted(tensors), {}
    for shard in range(shards):
        file = f"model-{shard + 1:05d}-of-{shards:05d}.safetensors"
        part = {name: tensors[name] for name in names[shard::shards]}
        weight_map |= dict.fromkeys(part, file)
        _save(part, path / file)
    total = sum(tensor.nbytes for tensor in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (path / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))
    return path


def _normal(rng: np.random.Generator, *shape: int, scale: float = 0.02) -> torch.Tensor:
    return torch.from_numpy(rng.standard_normal(shape, dtype=np.float32) * np.float32(scale))


def _trained(rng: np.random.Generator, rows: int, columns: int) -> torch.Tensor:
    """A factor as training leaves it: one dominant direction over small noise."""
    direction = torch.outer(_normal(rng, rows), _normal(rng, columns, scale=1.0))
    return direction + _normal(rng, rows, columns, scale=0.002)


def _lora(rng: np.random.Generator, rows: int, columns: int, rank: int) -> Tensors:
    return {"lora_A.weight": _normal(rng, rank, columns), "lora_B.weight": _trained(rng, rows, rank)}


def _dora(rng: np.random.Generator, rows: int, columns: int, rank: int) -> Tensors:
    magnitude = _normal(rng, rows).abs() + 0.5
    return _lora(rng, rows, columns, rank) | {"lora_magnitude_vector": magnitude}


def _adalora(rng: np.random.Generator, rows: int, columns: int, rank: int) -> Tensors:
    return {
        "lora_A": _normal(rng, rank, columns),
        "lora_B": _normal(rng, rows, rank),
        "lora_E": _normal(rng, rank, 1, scale=0.1),
    }


def _loha(rng: np.random.Generator, rows: int, columns: int, rank: int) -> Tensors:
    return {
        "hada_w1_a": _normal(rng, rows, rank, scale=0.1),
        "hada_w1_b": _normal(rng, rank, columns, scale=1.0),
        "hada_w2_a": _trained(rng, rows, rank),
        "hada_w2_b": _normal(rng, rank, columns, scale=1.0),
    }


def _lokr(rng: np.random.Generator, rows: int, columns: int, rank: int) -> Tensors:
    (left_rows, right_rows), (left_columns, right_columns) = _factors(rows), _factors(columns)
    tensors = {"lokr_w1": _normal(rng, left_rows, left_columns)}
    if rank < max(right_rows, right_columns) / 2:  # the condition under which peft factors w2
        tensors["lokr_w2_a"] = _normal(rng, right_rows, rank)
        tensors["lokr_w2_b"] = _normal(rng, rank, right_columns)
    else:
        tensors["lokr_w2"] = _normal(rng, right_rows, right_columns)
    return tensors


def _factors(size: int) -> tuple[int, int]:
    """The two factors of `size` closest to its square root, smaller first."""
    smaller = max(m for m in range(1, int(size**0.5) + 1) if size % m == 0)
    return smaller, size // smaller


def _ia3(rng: np.random.Generator, rows: int, columns: int, rank: int) -> Tensors:
    return {"ia3_l": 1 + _normal(rng, rows, 1)}


def _vera(rng: np.random.Generator, rows: int, columns: int, rank: int) -> Tensors:
    return {"vera_lambda_b": _normal(rng, rows), "vera_lambda_d": 0.1 + _normal(rng, rank)}


_MODULE_TENSORS: dict[str, Callable[[np.random.Generator, int, int, int], Tensors]] = {
    "lora": _lora,
    "rslora": _lora,
    "dora": _dora,
    "adalora": _adalora,
    "loha": _loha,
    "lokr": _lokr,
    "ia3": _ia3,
    "vera": _vera,
}
_VIRTUAL_TOKENS = 4
_PROMPTS: dict[str, Callable[[str, int, int], tuple[int, int]]] = {
    "prompt": lambda family, layers, width: (_VIRTUAL_TOKENS, width),
    "p-tuning": lambda family, layers, width: (_VIRTUAL_TOKENS, width),
    # keys and values of every layer; the llama family has half as many key-value heads as heads
    "prefix": lambda family, layers, width: (
        _VIRTUAL_TOKENS,
        2 * layers * (width // 2 if family == "llama" else width),
    ),
}
METHODS = (*_MODULE_TENSORS, *_PROMPTS)


def _adapter_config(
    method: str, rank: int, alpha: float, targets: tuple[str, ...], family: str
) -> dict[str, Any]:
    peft_type = {"prompt": "PROMPT_TUNING", "prefix": "PREFIX_TUNING", "p-tuning": "P_TUNING"}
    config: dict[str, Any] = {
        "base_model_name_or_path": f"example/{family}-tiny",
        "inference_mode": True,
        "modules_to_save": None,
        "peft_type": peft_type.get(method, "LORA" if method in ("rslora", "dora") else method.upper()),
        "revision": None,
        "task_type": "CAUSAL_LM",
    }
    if method in _PROMPTS:
        return config | {"num_virtual_tokens": _VIRTUAL_TOKENS}
    config["target_modules"] = list(targets)
    if method == "ia3":
        return config | {"fan_in_fan_out": family == "gpt2", "feedforward_modules": []}
    if method == "vera":
        config |= {"fan_in_fan_out": family == "gpt2", "projection_prng_key": 0, "save_projection": True}
        return config | {"r": rank, "bias": "none"}
    patterns = {"r": rank, "rank_pattern": {}, "alpha_pattern": {}}
    if method in ("loha", "lokr"):
        return config | patterns | {"alpha": alpha}
    config |= patterns | {
        "bias": "none",
        "fan_in_fan_out": family == "gpt2",
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "use_dora": method == "dora",
        "use_rslora": method == "rslora",
    }
    budget = {"init_r": rank, "target_r": rank, "total_step": 10}
    return config | (budget if method == "adalora" else {})


def _model_config(family: str, layers: int, width: int, vocab: int, dtype: str) -> dict[str, Any]:
    torch_dtype = str(DTYPES[dtype]).removeprefix("torch.")
    common = {"dtype": torch_dtype, "vocab_size": vocab, "bos_token_id": 1, "eos_token_id": 2}
    if family == "gpt2":
        sizes = {"n_layer": layers, "n_embd": width, "n_head": 4, "n_positions": 64}
        return {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]} | common | sizes
    sizes = {
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        "tie_word_embeddings": False,
    }
    return {"model_type": "llama", "architectures": ["LlamaForCausalLM"]} | common | sizes


def _checkpoint_tensors(
    rng: np.random.Generator, family: str, layers: int, width: int, vocab: int
) -> Tensors:
    tensors: Tensors = {}
    linear = modules(family, layers, width)
    if family == "gpt2":
        tensors["transformer.wte.weight"] = _normal(rng, vocab, width)
        tensors["transformer.wpe.weight"] = _normal(rng, 64, width)
        for name, rows, columns in linear:
            tensors[f"{name}.weight"] = _normal(rng, columns, rows)
            tensors[f"{name}.bias"] = torch.zeros(rows)
        norms = [f"transformer.h.{layer}.{norm}" for layer in range(layers) for norm in ("ln_1", "ln_2")]
        for norm in (*norms, "transformer.ln_f"):
            tensors |= {f"{norm}.weight": torch.ones(width), f"{norm}.bias": torch.zeros(width)}
        return tensors
    tensors["model.embed_tokens.weight"] = _normal(rng, vocab, width)
    tensors["lm_head.weight"] = _normal(rng, vocab, width)
    for name, rows, columns in linear:
        tensors[f"{name}.weight"] = _normal(rng, rows, columns)
    for layer in range(layers):
        for norm in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"model.layers.{layer}.{norm}.weight"] = torch.ones(width)
    return tensors | {"model.norm.weight": torch.ones(width)}


def _edited(tensors: Tensors, edit: Edit | None) -> Tensors:
    edited = edit(tensors) if edit else None
    return tensors if edited is None else edited


def _save(tensors: Mapping[str, torch.Tensor], path: Path, dtype: str = "", edit: Edit | None = None) -> None:
    final = _edited(dict(tensors), edit)
    if dtype:
        final = {name: t.to(DTYPES[dtype]) if t.is_floating_point() else t for name, t in final.items()}
    save_file({name: t.contiguous() for name, t in final.items()}, path, metadata={"format": "pt"})
