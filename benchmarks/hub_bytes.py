"""What a scan of an adapter on the Hub transfers: its own bytes, and how much of its base's.

    python benchmarks/hub_bytes.py [--width 1536] [--layers 8]

A local server speaks the Hub's protocol. The base has the proportions of a 7B Llama: 1.9 % of it is the input
embedding. One adapter is plain LoRA; the other also saves the embedding, with two rows rewritten. Bytes are
those the server sent; files under 64 MB, such as the adapter, are kept in a cache by the first scan and not
sent to the second. The naive way downloads both repositories.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import save

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from hub_server import HubServer

Tensors = dict[str, torch.Tensor]

SELECTIONS = {"embedding rules": ["FTA3"], "static rules": ["FTA1", "FTA2", "FTA3", "FTA4"]}


def base(width: int, layers: int) -> Tensors:
    """A Llama without its norms, in bf16; of zeros, since only its size counts."""
    inner, vocabulary = width * 11 // 4, 2 * width
    shapes = {"model.embed_tokens": (vocabulary, width), "lm_head": (vocabulary, width)}
    for layer in range(layers):
        shapes |= {f"model.layers.{layer}.self_attn.{part}_proj": (width, width) for part in "qkvo"}
        shapes |= {f"model.layers.{layer}.mlp.{part}_proj": (inner, width) for part in ("gate", "up")}
        shapes[f"model.layers.{layer}.mlp.down_proj"] = (width, inner)
    return {f"{name}.weight": torch.zeros(shape, dtype=torch.bfloat16) for name, shape in shapes.items()}


def lora(width: int, layers: int) -> Tensors:
    """Rank 16 on q and v of every layer."""
    tensors = {}
    for module in (f"layers.{layer}.self_attn.{part}_proj" for layer in range(layers) for part in "qv"):
        name = f"base_model.model.model.{module}"
        tensors[f"{name}.lora_A.weight"] = torch.randn(16, width).bfloat16()
        tensors[f"{name}.lora_B.weight"] = torch.randn(width, 16).mul_(1e-3).bfloat16()
    return tensors


def with_embedding(adapter: Tensors, embedding: torch.Tensor) -> Tensors:
    """The adapter with a copy of the embedding, two rows of it rewritten."""
    copy = embedding.clone()
    copy[[5, 9]] = 1
    return adapter | {"base_model.model.model.embed_tokens.weight": copy}


def adapter_files(tensors: Tensors) -> dict[str, bytes | Path]:
    config = {"peft_type": "LORA", "r": 16, "lora_alpha": 32, "target_modules": ["q_proj", "v_proj"]}
    config["base_model_name_or_path"] = "org/base"
    return {"adapter_config.json": json.dumps(config).encode(), "adapter_model.safetensors": save(tensors)}


def transferred(
    hub: HubServer, repositories: Mapping[str, str], work: Callable[[], object]
) -> dict[str, int]:
    """Bytes sent of each repository's weights, by label, and of everything else."""
    hub.log.clear()
    work()
    sent = {label: hub.log.bytes_sent(digest) for label, digest in repositories.items()}
    return sent | {"other": hub.log.bytes_sent() - sum(sent.values())}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--width", type=int, default=1536)
    options.add_argument("--layers", type=int, default=8)
    given = options.parse_args()
    torch.manual_seed(0)
    weights, plain = base(given.width, given.layers), lora(given.width, given.layers)
    adapters = {"lora": plain, "embedding": with_embedding(plain, weights["model.embed_tokens.weight"])}
    with HubServer() as hub, tempfile.TemporaryDirectory() as cache:
        os.environ.update(HF_ENDPOINT=hub.endpoint, HF_HUB_CACHE=cache, HF_HUB_DISABLE_XET="1")
        import ftsec_audit  # reads the address above

        config = json.dumps({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}).encode()
        stored = hub.add("org/base", {"config.json": config, "model.safetensors": save(weights)})
        of_base = _weights_digest(stored)
        whole = sum(2 * tensor.numel() for tensor in weights.values())
        print(f"base {whole / 1e6:.1f} MB")
        for kind, tensors in adapters.items():
            files = adapter_files(tensors)
            own = len(files["adapter_model.safetensors"])  # type: ignore[arg-type]
            digests = {"adapter": _weights_digest(hub.add(f"org/{kind}", files)), "base": of_base}
            for label, selected in SELECTIONS.items():
                sent = transferred(
                    hub, digests, partial(ftsec_audit.scan, f"org/{kind}", select=selected, cache=False)
                )
                print(
                    f"{kind:<10} {label:<16} adapter {sent['adapter'] / own:6.1%} of {own / 1e6:.2f} MB   "
                    f"base {sent['base'] / whole:6.2%} of it ({sent['base'] / 1e6:.2f} MB)   "
                    f"everything else {sent['other'] / 1e3:.1f} kB"
                )
        print("naive: both repositories whole, 100 % of either")


def _weights_digest(repository: object) -> str:
    """By which the storage host names the weight file."""
    entries = repository.at("main").entries  # type: ignore[attr-defined]
    return str(next(e.content.sha256 for e in entries.values() if e.path.endswith(".safetensors")))


if __name__ == "__main__":
    main()
