"""Adapter configurations: honest ones of many methods, and traps for the loader."""

from __future__ import annotations

import json
from collections.abc import Iterator

from corpus import CorpusSample, Label

LORA = {
    "peft_type": "LORA",
    "base_model_name_or_path": "org/base",
    "task_type": "CAUSAL_LM",
    "r": 8,
    "lora_alpha": 16,
    "target_modules": ["q_proj", "v_proj"],
    "bias": "none",
    "modules_to_save": None,
    "auto_mapping": None,
}
_UNSLOTH = (
    r"(?:.*?(?:language|text).*?(?:self_attn|attention|mlp|feed_forward|ffn|dense).*?(?:k_proj|v_proj|q_proj|"
    r"out_proj|fc1|fc2|gate_proj).*?)|(?:\bmodel\.layers\.[\d]{1,}\.(?:self_attn|mlp)\.(?:(?:k_proj|v_proj)))"
)


def malicious() -> dict[str, dict[str, object]]:
    """Changes to an honest configuration, each of which makes a loader do something."""
    return {
        "parent-library": {"auto_mapping": {"base_model_class": "X", "parent_library": "os"}},
        "parent-library-dotted": {"auto_mapping": {"base_model_class": "X", "parent_library": "evil.module"}},
        "parent-library-relative": {"auto_mapping": {"base_model_class": "X", "parent_library": "..x"}},
        "parent-library-remote": {
            "auto_mapping": {"base_model_class": "X", "parent_library": "transformers_modules.org.x.modeling"}
        },
        "megatron-core": {"megatron_core": "payload"},
        "cache-file": {"corda_config": {"cache_file": "cache.pt"}},
        "cache-file-top": {"cache_file": "/tmp/x.pt"},
        "covariance-file": {"corda_config": {"covariance_file": "c.pt"}},
        "trust-remote-code": {"tokenizer_kwargs": {"trust_remote_code": True}},
        "base-url": {"base_model_name_or_path": "http://example.invalid/model"},
        "base-file-url": {"base_model_name_or_path": "file:///etc"},
        "base-unc": {"base_model_name_or_path": "\\\\host\\share\\model"},
        "base-traversal": {"base_model_name_or_path": "../../secret"},
        "tokenizer-url": {"tokenizer_name_or_path": "https://example.invalid/tokenizer"},
        "regex-plus": {"target_modules": r"(a+)+$"},
        "regex-alternation": {"target_modules": r"(a|aa)+b"},
        "regex-prefix": {"target_modules": r"model\.layers\.(\w+\s?)+$"},
        "regex-word": {"target_modules": r"^(([a-z])+.)+[A-Z]([a-z])+$"},
        "regex-star": {"target_modules": r"(.*)*(.*)*(.*)*x"},
        "regex-two": {"target_modules": r"(x+x+)+y"},
        "regex-exclude": {"exclude_modules": r"(\w*\.)*(\w*\.)*(\w*)*!"},
        "regex-rank-pattern": {"rank_pattern": {r"(b*)*c": 8}},
        "regex-alpha-pattern": {"alpha_pattern": {r"([a-z]+)*\d": 8}},
        "regex-invalid": {"target_modules": "("},
        "regex-long": {"target_modules": "a?" * 20_000},
        "rank-bomb": {"r": 10**9},
        "rank-float": {"r": 1e300},
        "virtual-tokens": {"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 10**12},
        "layer-replication": {"layer_replication": [[0, 10**9]]},
        "layer-replication-many": {"layer_replication": [[0, 32]] * 1000},
    }


def benign() -> dict[str, dict[str, object]]:
    """Configurations as they are found in honest repositories."""
    return {
        "plain": {},
        "regex-suffix": {"target_modules": r".*\.(q|v)_proj"},
        "regex-unsloth": {"target_modules": _UNSLOTH},
        "regex-lookahead": {"target_modules": r"^(?!.*(?:audio|vision)).*(?:q_proj|v_proj)$"},
        "regex-layers": {"target_modules": r"model\.layers\.\d+\.(self_attn|mlp)\.[a-z_]+"},
        "all-linear": {"target_modules": "all-linear"},
        "auto-mapping": {
            "auto_mapping": {
                "base_model_class": "GPT2LMHeadModel",
                "parent_library": "transformers.models.gpt2.modeling_gpt2",
            }
        },
        "megatron": {"megatron_config": None, "megatron_core": "megatron.core"},
        "rslora": {"use_rslora": True, "r": 256},
        "dora": {"use_dora": True, "lora_dropout": 0.05},
        "patterns": {"rank_pattern": {"model.layers.3.self_attn.q_proj": 4}, "alpha_pattern": {"v_proj": 32}},
        "saved-modules": {"modules_to_save": ["embed_tokens", "lm_head"]},
        "same-tokenizer": {"tokenizer_name_or_path": "org/base", "peft_type": "PROMPT_TUNING"},
        "ia3": {"peft_type": "IA3", "feedforward_modules": ["down_proj"]},
        "adalora": {
            "peft_type": "ADALORA",
            "target_r": 8,
            "init_r": 12,
            "tinit": 200,
            "orth_reg_weight": 0.5,
        },
        "prefix": {
            "peft_type": "PREFIX_TUNING",
            "num_virtual_tokens": 20,
            "token_dim": 4096,
            "num_layers": 32,
        },
        "replication": {"layer_replication": [[0, 16], [8, 24]]},
        "tokens": {"trainable_token_indices": {"embed_tokens": [0, 1]}},
        "eva": {"eva_config": {"rho": 2.0}, "init_lora_weights": "eva"},
        "revision": {"revision": "main", "inference_mode": True, "layers_pattern": None},
    }


def samples() -> Iterator[CorpusSample]:
    for name, change in malicious().items():
        yield _sample(name, Label.MALICIOUS, "peft-config", json.dumps(LORA | change).encode())
    for name, change in benign().items():
        yield _sample(f"honest-{name}", Label.BENIGN, "peft-honest", json.dumps(LORA | change).encode())
    deep = b'{"a":' * 3000 + b"1" + b"}" * 3000
    broken = {
        "truncated": b'{"peft_type": "LO',
        "deep": deep,
        "binary": bytes(range(256)),
        "digits": b'{"r": ' + b"9" * 9000 + b"}",
    }
    for name, data in broken.items():
        yield _sample(f"broken-{name}", Label.CORRUPT, "peft-config", data)


def _sample(name: str, label: Label, group: str, data: bytes) -> CorpusSample:
    return CorpusSample(name=f"peft-{name}", label=label, group=group, files={"adapter_config.json": data})
