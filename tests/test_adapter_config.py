from __future__ import annotations

import math
import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ftsec_audit.adapter_config import AdapterConfig, matches

LORA = {"peft_type": "LORA", "r": 16, "lora_alpha": 32, "target_modules": ["q_proj", "v_proj"]}


@pytest.mark.parametrize(
    ("raw", "method"),
    [
        ({"peft_type": "LORA"}, "lora"),
        ({"peft_type": "lora"}, "lora"),
        ({"peft_type": "LORA", "use_rslora": True}, "rslora"),
        ({"peft_type": "LORA", "use_dora": True}, "dora"),
        ({"peft_type": "LORA", "use_dora": True, "use_rslora": True}, "dora"),
        ({"peft_type": "ADALORA"}, "adalora"),
        ({"peft_type": "IA3"}, "ia3"),
        ({"peft_type": "BOFT"}, "boft"),
        ({"peft_type": "PROMPT_TUNING"}, "prompt"),
        ({"peft_type": "PREFIX_TUNING"}, "prefix"),
        ({"peft_type": "P_TUNING"}, "p-tuning"),
        ({"peft_type": "LN_TUNING"}, "ln-tuning"),
        ({"peft_type": "FINEGATES"}, "finegates"),
        ({"lora_alpha": 8}, "lora"),
        ({}, ""),
        ({"peft_type": 7}, ""),
        ({"peft_type": "../../x"}, ""),
        ({"peft_type": "A" * 1000}, ""),
    ],
)
def test_methods(raw: dict[str, object], method: str) -> None:
    assert AdapterConfig.of(raw).method == method


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, 32 / 16),
        ({"use_rslora": True}, 32 / math.sqrt(16)),
        ({"use_rslora": True, "use_dora": True}, 32 / math.sqrt(16)),
        ({"use_rslora": "yes"}, 32 / 16),
        ({"alpha_pattern": {"q_proj": 8}}, 8 / 16),
        ({"alpha_pattern": {"model.layers.0.self_attn.q_proj": 8}}, 8 / 16),
        ({"alpha_pattern": {"^model.layers.0.self_attn.q_proj$": 8}}, 8 / 16),
        ({"alpha_pattern": {"layers.1.self_attn.q_proj": 8}}, 32 / 16),
        ({"lora_alpha": "32"}, 1.0),
        ({"peft_type": "LOHA", "alpha": 4}, 4 / 16),
        ({"peft_type": "LOKR", "alpha": 4}, 4 / 16),
        ({"peft_type": "ADALORA"}, 32 / 16),
        ({"peft_type": "ADALORA", "lora_alpha": 0}, 1.0),
        ({"peft_type": "IA3"}, 1.0),
        ({"peft_type": "VERA"}, 1.0),
    ],
)
def test_scaling(changes: dict[str, object], expected: float) -> None:
    config = AdapterConfig.of(LORA | changes)
    assert config.scaling("model.layers.0.self_attn.q_proj", 16) == pytest.approx(expected)


def test_absent_numbers_are_those_of_peft() -> None:
    config = AdapterConfig.of({"peft_type": "LORA"})
    assert (config.rank, config.alpha) == (8, 8.0)
    assert config.problems == ()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("r", "16"),
        ("r", True),
        ("r", -1),
        ("r", 0),
        ("r", 2.5),
        ("r", 10**400),
        ("r", float("inf")),
        ("lora_alpha", float("nan")),
        ("lora_alpha", [32]),
        ("target_modules", {"q": 1}),
        ("target_modules", ["q_proj", 7]),
        ("rank_pattern", [1]),
        ("rank_pattern", {"q_proj": "8"}),
        ("alpha_pattern", {"q_proj": None}),
        ("modules_to_save", "lm_head"),
        ("bias", 1),
        ("trainable_token_indices", 7),
        ("trainable_token_indices", [1, -1]),
        ("trainable_token_indices", {"embed": [True]}),
        ("task_type", {}),
        ("base_model_name_or_path", ["a"]),
    ],
)
def test_odd_values_become_problems(key: str, value: object) -> None:
    config = AdapterConfig.of(LORA | {key: value})
    assert any(key in problem for problem in config.problems)
    assert all(len(problem) < 200 for problem in config.problems)
    config.scaling("q_proj", 16)


def test_what_adapters_declare_beyond_low_rank_updates() -> None:
    config = AdapterConfig.of(
        LORA
        | {
            "modules_to_save": ["lm_head", "classifier"],
            "bias": "lora_only",
            "trainable_token_indices": [3, 5],
            "fan_in_fan_out": True,
            "rank_pattern": {"v_proj": 4},
        }
    )
    assert config.modules_to_save == ("lm_head", "classifier")
    assert config.bias == "lora_only"
    assert config.trainable_token_indices == {"embed_tokens": (3, 5)}
    assert config.fan_in_fan_out
    assert config.declared_rank("model.layers.3.self_attn.v_proj") == 4
    assert config.declared_rank("model.layers.3.self_attn.q_proj") == 16
    by_module = AdapterConfig.of(LORA | {"trainable_token_indices": {"wte": [1]}})
    assert by_module.trainable_token_indices == {"wte": (1,)}


def test_adalora_counts_the_ranks_it_kept() -> None:
    kept = {"model.layers.0.self_attn.q_proj.lora_E": [True, False, True]}
    config = AdapterConfig.of(
        {"peft_type": "ADALORA", "init_r": 12, "target_r": 8, "r": 8, "rank_pattern": kept}
    )
    assert config.rank == 12
    assert config.declared_rank("model.layers.0.self_attn.q_proj") == 2
    assert config.problems == ()


@pytest.mark.parametrize(
    "pattern", ["q_proj", "self_attn.q_proj", r"layers\.0\.self_attn\.q_proj", "^model.layers.0.q$", "x"]
)
@pytest.mark.parametrize(
    "module", ["model.layers.0.self_attn.q_proj", "q_proj", "model.layers.0.q", "my_q_proj"]
)
def test_literal_patterns_match_as_peft_matches_them(pattern: str, module: str) -> None:
    assert matches(pattern, module) == bool(re.match(rf"(.*\.)?({pattern})$", module))


def test_a_hostile_pattern_is_never_evaluated() -> None:
    start = time.process_time()
    config = AdapterConfig.of(LORA | {"alpha_pattern": {"(a+)+b": 1.0}, "target_modules": "(a+)+$"})
    assert config.scaling("a" * 5000, 16) == 2.0
    assert time.process_time() - start < 0.5
    assert any("not evaluated" in problem for problem in config.problems)
    assert config.targets == "(a+)+$"


def test_descriptions_are_short() -> None:
    assert AdapterConfig.of(LORA).describe() == "LoRA r=16 (q_proj,v_proj)"
    assert AdapterConfig.of({"peft_type": "PREFIX_TUNING"}).describe() == "prefix tuning"
    assert AdapterConfig.of({"peft_type": "BOFT"}).describe() == "BOFT"
    assert AdapterConfig.of({}).describe() == "adapter of unknown method"
    many = AdapterConfig.of(LORA | {"target_modules": ["m" * 1000] * 1000})
    assert len(many.describe()) < 300
    assert "matching" in AdapterConfig.of(LORA | {"target_modules": ".*" * 500}).describe()


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
keys = st.sampled_from(
    [*LORA, "alpha", "rank_pattern", "alpha_pattern", "trainable_token_indices", "init_r", "bias", "use_dora"]
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(keys, values), st.text(max_size=8), st.integers(-2, 99))
def test_no_document_raises(raw: dict[str, object], module: str, rank: int) -> None:
    config = AdapterConfig.of(raw)
    assert math.isfinite(config.scaling(module, rank))
    assert config.declared_rank(module) is None or isinstance(config.declared_rank(module), int)
    assert config.describe()
