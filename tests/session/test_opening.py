"""What is not loaded: anything that is not safetensors, brings code, lacks weights or does not fit."""

from __future__ import annotations

import json

import pytest
import torch
from builders.behaviour import asked, subject, tiny_base
from builders.lab import random_adapter
from safetensors.torch import load_file, save_file

from attacks_ref.recipe import Recipe
from ftsec_audit.errors import NotApplicable, Unsupported
from ftsec_audit.session import SessionOptions, open_sessions
from ftsec_audit.session.admission import Limits, admit


@pytest.fixture
def base(tmp_path):
    return tiny_base(tmp_path / "base")


def change(path, **entries):
    content = json.loads(path.read_text()) | entries
    path.write_text(json.dumps(content))


def refusal(path, base=None):
    with pytest.raises(Unsupported) as caught, asked(path, base):
        pass
    return str(caught.value)


def test_remote_code_is_refused_and_not_imported(base, tmp_path):
    change(base / "config.json", auto_map={"AutoModelForCausalLM": "evil.Model"})
    (base / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    assert "auto_map" in refusal(base)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("key", ["auto_mapping", "megatron_config"])
def test_an_adapter_that_names_modules_to_import_is_refused(base, tmp_path, key):
    adapter = random_adapter(base, tmp_path / "adapter", Recipe(rank=2))
    change(adapter / "adapter_config.json", **{key: {"parent_library": "os"}})
    assert key in refusal(adapter, base)


def test_pickled_weights_are_refused(base):
    (base / "model.safetensors").unlink()
    torch.save({}, base / "pytorch_model.bin")
    assert "safetensors" in refusal(base)


def test_a_pickle_beside_the_weights_is_out_of_the_loaders_reach(base, monkeypatch):
    (base / "pytorch_model.bin").write_bytes(b"\x80\x04cos\nsystem\n.")
    monkeypatch.setattr(torch, "load", lambda *a, **k: pytest.fail("unpickled"))
    with asked(base) as sessions:
        assert sessions.subject.parameters > 0


def test_missing_weights_are_not_filled_with_chance(base):
    tensors = load_file(base / "model.safetensors")
    tensors.pop("model.layers.1.mlp.down_proj.weight")
    save_file(tensors, base / "model.safetensors", {"format": "pt"})
    assert "missing" in refusal(base)


def test_an_unknown_architecture_is_no_error(base):
    change(base / "config.json", model_type="nonesuch", architectures=["Nonesuch"])
    assert "cannot be loaded" in refusal(base)


def test_quantised_weights_are_refused(base):
    change(base / "config.json", quantization_config={"quant_method": "bitsandbytes"})
    assert "quantised" in refusal(base)


def test_an_index_may_not_lead_outside(base):
    tensors = load_file(base / "model.safetensors")
    (base / "model.safetensors").rename(base / "model-00001-of-00001.safetensors")
    index = {"weight_map": dict.fromkeys(tensors, "../other.safetensors")}
    (base / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(Unsupported), asked(base):
        pass


def test_no_tokenizer_no_questions(base):
    (base / "tokenizer.json").unlink()
    assert "tokenizer" in refusal(base)


def test_a_folder_without_a_model_is_not_applicable(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(NotApplicable), open_sessions(subject(tmp_path), SessionOptions(device="cpu")):
        pass


def test_what_does_not_fit_is_said_with_numbers(base):
    with pytest.raises(Unsupported, match="parameters"):
        admit(subject(base), Limits(parameters=10), free_bytes=1 << 40)
    with pytest.raises(Unsupported, match="bytes of memory"):
        admit(subject(base), Limits(), free_bytes=1000)


def test_a_gpu_that_is_not_there_is_said(base):
    if torch.cuda.is_available():
        pytest.skip("there is one")
    gpu = SessionOptions(device="cuda")
    with pytest.raises(Unsupported, match="cuda"), open_sessions(subject(base), gpu):
        pass


def test_a_bias_that_peft_trains_in_place_gets_a_base_of_its_own(base, tmp_path):
    adapter = random_adapter(base, tmp_path / "adapter", Recipe(rank=2))
    change(adapter / "adapter_config.json", bias="lora_only")
    with asked(adapter, base) as sessions:
        assert sessions.base.model is not sessions.subject.model
