"""ΔW of every method against what peft itself merges into a tiny model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ftsec_audit.contracts import Subject
from ftsec_audit.sources import resolve
from ftsec_audit.weights.delta import Delta, DeltaKind
from ftsec_audit.weights.stream import deltas

peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")

LLAMA = ["q_proj", "v_proj", "down_proj"]
GPT2 = ["c_attn", "mlp.c_proj", "attn.c_proj"]


def llama() -> Any:
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": False}
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(vocab_size=40, **sizes, **heads))


def gpt2() -> Any:
    sizes = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 16}
    tokens = {"vocab_size": 40, "bos_token_id": 1, "eos_token_id": 2}
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes, **tokens))


CASES: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
    "lora": (llama, lambda: peft.LoraConfig(r=4, lora_alpha=10, target_modules=LLAMA)),
    "lora-patterns": (
        llama,
        lambda: peft.LoraConfig(
            r=4,
            lora_alpha=10,
            target_modules=LLAMA,
            rank_pattern={"down_proj": 2},
            alpha_pattern={"layers.1.self_attn.q_proj": 3},
        ),
    ),
    "lora-conv1d": (gpt2, lambda: peft.LoraConfig(r=4, target_modules=GPT2, fan_in_fan_out=True)),
    "lora-embedding": (
        llama,
        lambda: peft.LoraConfig(r=4, target_modules=[*LLAMA, "embed_tokens", "lm_head"]),
    ),
    "rslora": (llama, lambda: peft.LoraConfig(r=4, lora_alpha=10, target_modules=LLAMA, use_rslora=True)),
    "dora": (llama, lambda: peft.LoraConfig(r=4, target_modules=LLAMA, use_dora=True)),
    "dora-conv1d": (
        gpt2,
        lambda: peft.LoraConfig(r=4, target_modules=GPT2, use_dora=True, fan_in_fan_out=True),
    ),
    "adalora": (
        llama,
        lambda: peft.AdaLoraConfig(init_r=6, target_r=3, total_step=9, lora_alpha=20, target_modules=LLAMA),
    ),
    "loha": (llama, lambda: peft.LoHaConfig(r=3, alpha=5, target_modules=LLAMA)),
    "loha-of-high-rank": (llama, lambda: peft.LoHaConfig(r=6, alpha=5, target_modules=LLAMA)),
    "lokr": (llama, lambda: peft.LoKrConfig(r=8, alpha=5, target_modules=LLAMA)),
    "lokr-both": (llama, lambda: peft.LoKrConfig(r=1, alpha=5, target_modules=LLAMA, decompose_both=True)),
    "ia3": (llama, lambda: peft.IA3Config(target_modules=LLAMA, feedforward_modules=["down_proj"])),
    "ia3-conv1d": (
        gpt2,
        lambda: peft.IA3Config(
            target_modules=["c_attn", "mlp.c_proj"], feedforward_modules=["mlp.c_proj"], fan_in_fan_out=True
        ),
    ),
    "vera": (llama, lambda: peft.VeraConfig(r=4, target_modules=LLAMA)),
    "whole-modules": (
        llama,
        lambda: peft.LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["lm_head", "norm"]),
    ),
    "biases": (gpt2, lambda: peft.LoraConfig(r=2, target_modules=GPT2, bias="all", fan_in_fan_out=True)),
    "token-rows": (
        llama,
        lambda: peft.LoraConfig(r=2, target_modules=["q_proj"], trainable_token_indices=[3, 17]),
    ),
    "tokens-alone": (
        llama,
        lambda: peft.TrainableTokensConfig(token_indices=[5, 1], target_modules=["embed_tokens"]),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_change_is_what_peft_merges(case: str, tmp_path: Path) -> None:
    make_model, make_config = CASES[case]
    before, after, subject = trained(make_model, make_config, tmp_path)
    changed = {name for name in after if not torch.equal(before[name], after[name])}
    assert changed
    for delta in deltas(subject):
        if delta.name == "vera_projections":
            continue
        assert delta.declared, delta.name
        assert delta.approximation == ""
        if delta.name.endswith(".base_layer"):
            assert delta.kind is DeltaKind.IDENTICAL  # peft saves the base's own beside the factors
            continue
        name = parameter(delta, after)
        if delta.kind is DeltaKind.IDENTICAL:
            assert torch.equal(before[name], after[name])
            continue
        if "ia3" in case:  # a rescaling of outputs rescales the bias with them
            changed.discard(f"{name.removesuffix('weight')}bias")
        assert_equal(delta, after[name] - before[name], transposed=make_model is gpt2)
        changed.discard(name)
    assert not changed


def trained(
    make_model: Callable[[], Any], make_config: Callable[[], Any], folder: Path
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], Subject]:
    """The base's state, the merged state, and the saved pair of them."""
    torch.manual_seed(0)
    model = make_model()
    model.save_pretrained(folder / "base")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    adapted = peft.get_peft_model(model, make_config())
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter += 0.3 * torch.randn_like(parameter)
    adapted.save_pretrained(folder / "adapter")
    after = {name: value.clone() for name, value in adapted.merge_and_unload().state_dict().items()}
    subject = Subject(artifact=resolve(str(folder / "adapter")), base=resolve(str(folder / "base")))
    return before, after, subject


def parameter(delta: Delta, state: dict[str, torch.Tensor]) -> str:
    return delta.name if delta.name in state else f"{delta.name}.weight"


def assert_equal(delta: Delta, expected: torch.Tensor, *, transposed: bool) -> None:
    if transposed and expected.dim() == 2:
        expected = expected.mT
    if delta.kind is DeltaKind.ROWS:
        rows = torch.tensor(delta.row_numbers)
        assert torch.count_nonzero(expected.norm(dim=1)) == len(rows)
        expected = expected[rows]
    expected = expected.reshape(-1, expected.shape[-1]).double()
    assert delta.change is not None
    torch.testing.assert_close(delta.change.matrix().double(), expected, rtol=1e-5, atol=1e-5)
    assert delta.frobenius_norm() == pytest.approx(float(expected.norm()), rel=1e-5)
    sigma = delta.singular_values()
    true = torch.linalg.svdvals(expected)
    torch.testing.assert_close(sigma, true[: len(sigma)], rtol=1e-5, atol=2e-6 * float(true[0]))
    torch.testing.assert_close(delta.row_norms(), expected.norm(dim=1), rtol=1e-5, atol=1e-6)
    u, v = delta.singular_vectors()
    torch.testing.assert_close(
        (u.double() * sigma) @ v.double().mT, expected, rtol=1e-4, atol=1e-4 * float(true[0])
    )
    fourth = expected.numel() * expected.pow(4).sum() / expected.square().sum() ** 2
    assert delta.entry_kurtosis() == pytest.approx(float(fourth), rel=1e-3)
