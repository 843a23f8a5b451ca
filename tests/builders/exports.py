"""Causal models as ONNX graphs, with the files and names that optimum gives them."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM
from transformers.cache_utils import DynamicCache

_BESIDE = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
)


class _Plain(torch.nn.Module):
    """`input_ids`, `attention_mask` → `logits`."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        out = self.model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)
        logits: torch.Tensor = out.logits
        return logits


class _WithPast(_Plain):
    """Also `position_ids` and keys and values of every layer, in and out."""

    def forward(self, *inputs: torch.Tensor) -> Any:  # type: ignore[override]
        ids, mask, positions, *past = inputs
        cache = DynamicCache(list(zip(past[::2], past[1::2], strict=True)))
        out = self.model(
            input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True
        )
        present = (part for layer in out.past_key_values.layers for part in (layer.keys, layer.values))
        return out.logits, *present


def graph_folder(model: Path, out: Path, content: bytes, *, name: str = "model.onnx") -> Path:
    """The graph `content` in the new folder `out`, with the configuration and tokenizer of `model`."""
    (out / name).parent.mkdir(parents=True)
    for beside in _BESIDE:
        if (model / beside).exists():
            shutil.copy(model / beside, out / beside)
    (out / name).write_bytes(content)
    return out


def exported(
    model: Path, out: Path, *, past: bool = False, half: bool = False, name: str = "model.onnx"
) -> Path:
    """The model in the folder `model` as a graph in the new folder `out`; `past`: with a cache."""
    graph_folder(model, out, b"", name=name)
    network = AutoModelForCausalLM.from_pretrained(
        model, attn_implementation="eager", dtype=torch.float16 if half else torch.float32
    ).eval()
    ids = torch.tensor([[1, 5, 20, 30], [2, 6, 7, 8]])
    inputs: dict[str, torch.Tensor] = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    outputs, axes = (
        ["logits"],
        {"input_ids": {0: "batch", 1: "sequence"}, "attention_mask": {0: "batch", 1: "all"}},
    )
    axes["logits"] = axes["input_ids"]
    if past:
        config = network.config
        inputs["attention_mask"] = torch.ones(2, 7, dtype=torch.int64)
        inputs["position_ids"] = torch.arange(3, 7).expand(2, 4)
        axes["position_ids"] = axes["input_ids"]
        heads, width = config.num_key_value_heads, config.hidden_size // config.num_attention_heads
        for layer in range(config.num_hidden_layers):
            for part in ("key", "value"):
                inputs[f"past_key_values.{layer}.{part}"] = torch.randn(
                    2, heads, 3, width, dtype=network.dtype
                )
                axes[f"past_key_values.{layer}.{part}"] = {0: "batch", 2: "past"}
                outputs.append(f"present.{layer}.{part}")
                axes[outputs[-1]] = {0: "batch", 2: "all"}
    wrapped = _WithPast(network) if past else _Plain(network)
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # The step that needs the package `onnx` adds functions of users' own operators; there are none.
        steps = "torch.onnx._internal.torchscript_exporter.onnx_proto_utils"
        patch.setattr(f"{steps}._add_onnxscript_fn", lambda content, _: content)
        torch.onnx.export(
            wrapped,
            tuple(inputs.values()),
            str(out / name),
            input_names=list(inputs),
            output_names=outputs,
            dynamic_axes=axes,
            dynamo=False,
            opset_version=17,
        )
    return out
