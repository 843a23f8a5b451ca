"""Fields of the configuration that say how the tensors are to be read. ΔW does not change.

A reader that ignores `rank_pattern`, or believes `fan_in_fan_out` where PEFT corrects it, misjudges the
adapter.
"""

# ruff: noqa: ARG002 (not every transform needs all that the contract offers)

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from attacks_ref.stealth.gauge import padded
from attacks_ref.stealth.tensors import (
    lora_pairs,
    module_of,
    module_scaling,
    plain_lora,
    read_adapter,
    set_scaling,
    write_adapter,
)
from attacks_ref.stealth.transform import Transform


@dataclass(frozen=True, kw_only=True)
class RankPattern(Transform):
    """Every other module gets a rank, and the α that goes with it, by name."""

    name: ClassVar[str] = "rank-pattern"

    factor: int = 3

    def apply(self, base: Path, sample: Path, *, seed: int) -> None:
        import torch

        tensors, config = read_adapter(sample)
        plain_lora(tensors, config, self.name)
        generator = torch.Generator().manual_seed(seed)
        config["rank_pattern"] = dict(config.get("rank_pattern") or {})
        for name_a, name_b in lora_pairs(tensors)[::2]:
            module, rank = module_of(name_a), tensors[name_a].shape[0]
            scale = module_scaling(config, module, rank)
            tensors[name_a], tensors[name_b] = padded(
                tensors[name_a], tensors[name_b], self.factor * rank, generator
            )
            config["rank_pattern"][module] = self.factor * rank
            set_scaling(config, module, self.factor * rank, scale)
        write_adapter(sample, tensors, config)


@dataclass(frozen=True, kw_only=True)
class FanFlip(Transform):
    """`fan_in_fan_out` says the opposite of what is true; PEFT goes by the base's module and warns."""

    name: ClassVar[str] = "fan-flip"

    def apply(self, base: Path, sample: Path, *, seed: int) -> None:
        tensors, config = read_adapter(sample)
        config["fan_in_fan_out"] = not config.get("fan_in_fan_out")
        write_adapter(sample, tensors, config)
