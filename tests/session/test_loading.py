"""An adapter switched off layer by layer, or added to a copy, gives what peft itself would give."""

from __future__ import annotations

import peft
import pytest
import torch
import transformers
from builders.behaviour import tiny_base

from attacks_ref.workbench import load_model
from ftsec_audit.errors import Unsupported
from ftsec_audit.session.loading import AdapterSwitch, detach, load_checkpoint, merged_copy

IDS = torch.tensor([[1, 5, 20, 30]])
ADAPTERS = {
    "lora": peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False),
    "dora": peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False, use_dora=True),
    "whole modules": peft.LoraConfig(
        r=2, target_modules=["q_proj"], init_lora_weights=False, modules_to_save=["lm_head"]
    ),
    "tokens": peft.LoraConfig(
        r=2,
        target_modules=["q_proj"],
        init_lora_weights=False,
        trainable_token_indices={"embed_tokens": [5, 20]},
    ),
    "loha": peft.LoHaConfig(r=2, target_modules=["q_proj"], init_weights=False),
    "ia3": peft.IA3Config(
        target_modules=["down_proj"], feedforward_modules=["down_proj"], init_ia3_weights=False
    ),
}


@pytest.mark.parametrize("kind", ADAPTERS)
def test_off_is_off_and_on_again(kind, tmp_path):
    model = load_model(tiny_base(tmp_path / "base"))
    with torch.no_grad():
        alone = model(input_ids=IDS).logits
        wrapped = peft.get_peft_model(model, ADAPTERS[kind]).eval()
        for name, parameter in wrapped.named_parameters():
            if "modules_to_save" in name or "trainable_tokens_delta" in name:
                parameter.add_(0.1)
        on = wrapped(input_ids=IDS).logits
        switch = AdapterSwitch(wrapped)
        for _ in range(2):
            with switch.off():
                assert torch.equal(wrapped(input_ids=IDS).logits, alone)
            with switch.on():
                assert torch.equal(wrapped(input_ids=IDS).logits, on)
        with pytest.raises(KeyError), switch.off():
            raise KeyError
        with switch.on():
            assert torch.equal(wrapped(input_ids=IDS).logits, on)
    assert not torch.equal(on, alone)


@pytest.mark.parametrize("kind", ADAPTERS)
def test_a_merged_copy_says_what_the_adapter_says_and_leaves_the_model_alone(kind, tmp_path):
    wrapped = peft.get_peft_model(load_model(tiny_base(tmp_path / "base")), ADAPTERS[kind]).eval()
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "modules_to_save" in name or "trainable_tokens_delta" in name:
                parameter.add_(0.1)
        on = wrapped(input_ids=IDS).logits
        copy = merged_copy(wrapped)
        torch.testing.assert_close(copy(input_ids=IDS).logits, on, atol=1e-4, rtol=1e-4)
        assert torch.equal(wrapped(input_ids=IDS).logits, on)
        with wrapped.disable_adapter():
            off = wrapped(input_ids=IDS).logits
        assert torch.equal(detach(wrapped)(input_ids=IDS).logits, off)


def test_an_adapter_of_a_tied_embedding_is_not_merged(tmp_path):
    model = load_model(tiny_base(tmp_path / "base"))
    model.lm_head.weight = model.model.embed_tokens.weight
    config = peft.LoraConfig(r=2, target_modules=["embed_tokens"], init_lora_weights=False)
    with pytest.raises(Unsupported, match="others use the weights"):
        merged_copy(peft.get_peft_model(model, config))


def test_one_kernel_for_the_activation_of_gpt2_gives_the_same(tmp_path):
    sizes = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 16, "vocab_size": 40}
    transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes)).save_pretrained(tmp_path)
    loaded = load_checkpoint(tmp_path, device="cpu", dtype="float32")
    library = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert isinstance(loaded.transformer.h[0].mlp.act, torch.nn.GELU)
    with torch.no_grad():
        torch.testing.assert_close(loaded(input_ids=IDS).logits, library(input_ids=IDS).logits)


def test_a_layer_that_fails_leaves_no_state_that_is_taken_for_granted(tmp_path, monkeypatch):
    model = load_model(tiny_base(tmp_path / "base"))
    wrapped = peft.get_peft_model(model, ADAPTERS["lora"]).eval()
    switch = AdapterSwitch(wrapped)
    with monkeypatch.context() as patched, pytest.raises(RuntimeError), torch.no_grad():
        patched.setattr(switch._layers[-1], "enable_adapters", fails)
        switch.off().__enter__()
    with torch.no_grad(), switch.on():
        again = wrapped(input_ids=IDS).logits
        assert torch.equal(again, peft_says(wrapped))


def fails(_: bool) -> None:
    raise RuntimeError


def peft_says(wrapped):
    wrapped.base_model.enable_adapter_layers()
    return wrapped(input_ids=IDS).logits
