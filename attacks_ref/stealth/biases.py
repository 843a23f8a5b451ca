"""Biases that come with the adapter, beside its factors.

Where the base has a bias it is replaced by a shifted copy of which the configuration says nothing
(`bias` stays `none`); elsewhere `lora_bias` gives B one of its own. A reader of matrices sees neither.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from attacks_ref.stealth.tensors import (
    PREFIX,
    base_weights,
    lora_pairs,
    module_of,
    plain_lora,
    read_adapter,
    write_adapter,
)
from attacks_ref.stealth.transform import Transform


@dataclass(frozen=True, kw_only=True)
class BiasShift(Transform):
    """A small random shift of the output of every adapted module."""

    name: ClassVar[str] = "bias-shift"

    strength: float = 0.02
    """Standard deviation of the shift of one output."""

    def apply(self, base: Path, sample: Path, *, seed: int) -> None:
        import torch

        tensors, config = read_adapter(sample)
        plain_lora(tensors, config, self.name)
        weights, _ = base_weights(base)
        generator = torch.Generator().manual_seed(seed)
        pairs = lora_pairs(tensors)
        own = any(f"{module_of(name)}.bias" in weights for name, _ in pairs)
        for name_a, name_b in pairs:
            module, out = module_of(name_a), tensors[name_b].shape[0]
            shift = torch.randn(out, generator=generator) * self.strength
            if not own:
                tensors[f"{PREFIX}{module}.lora_B.bias"] = shift.to(tensors[name_b].dtype)
            elif f"{module}.bias" in weights:
                bias = weights[f"{module}.bias"]
                tensors[f"{PREFIX}{module}.base_layer.bias"] = (bias.float() + shift).to(bias.dtype)
        if not own:
            config["lora_bias"] = True
        write_adapter(sample, tensors, config)
