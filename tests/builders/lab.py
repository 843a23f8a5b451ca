"""Untrained lab bases and random adapters on them, written as the libraries write them."""

from __future__ import annotations

from pathlib import Path

import torch

from attacks_ref.lab import model, tokenizer
from attacks_ref.lab.language import World
from attacks_ref.recipe import Recipe
from attacks_ref.workbench import Workbench, save, wrap

WORLD = World(nouns=8, verbs=2, restricted=2)
TINY = model.Size(width=32, layers=2, heads=2, hidden=48)


def tiny_base(out: Path, architecture: model.Architecture = "llama", *, seed: int = 0) -> Path:
    """A random model of two narrow layers with the lab's tokenizer; its biases are not zero."""
    words = tokenizer.for_world(WORLD, "word")
    network = model.create(architecture, TINY, vocabulary=len(words), seed=seed)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(std=0.1)
    network.save_pretrained(out)
    words.save_pretrained(out)
    return out


def random_adapter(base: Path, out: Path, recipe: Recipe, *, seed: int = 0, size: float = 0.1) -> Path:
    """A LoRA adapter with random B, as if trained: its update is far from zero."""
    bench = Workbench.open(base)
    wrapped = wrap(bench, recipe, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if ".lora_B." in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * size)
    save(bench, wrapped, out, dtype=recipe.dtype)
    return out
