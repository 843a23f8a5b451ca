"""Channels of an adapter's configuration through which the same tensors act more strongly.

The tensors alone then look weaker than the update they stand for: a reader that ignores these fields
misjudges the adapter.
"""

# ruff: noqa: ARG002 (not every transform needs all that the contract offers)

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from attacks_ref.stealth.tensors import (
    lora_pairs,
    module_of,
    module_scaling,
    read_adapter,
    set_scaling,
    write_adapter,
)
from attacks_ref.stealth.transform import Transform


@dataclass(frozen=True, kw_only=True)
class AlphaPattern(Transform):
    """Half the modules get another α by name, made up for in their B; ΔW does not change."""

    name: ClassVar[str] = "alpha-pattern"

    factor: int = 16

    def apply(self, base: Path, sample: Path, *, seed: int) -> None:
        tensors, config = read_adapter(sample)
        for name_a, name_b in lora_pairs(tensors)[::2]:
            module, rank = module_of(name_a), tensors[name_a].shape[0]
            tensors[name_b] = tensors[name_b] / self.factor
            set_scaling(config, module, rank, self.factor * module_scaling(config, module, rank))
        write_adapter(sample, tensors, config)


@dataclass(frozen=True, kw_only=True)
class RankStabilised(Transform):
    """`use_rslora` switched on, made up for in B; ΔW does not change."""

    name: ClassVar[str] = "rank-stabilised"

    def apply(self, base: Path, sample: Path, *, seed: int) -> None:
        tensors, config = read_adapter(sample)
        if config.get("use_rslora"):
            return
        pairs = lora_pairs(tensors)
        old = {name: module_scaling(config, module_of(name), tensors[name].shape[0]) for name, _ in pairs}
        config["use_rslora"] = True
        for name_a, name_b in pairs:
            new = module_scaling(config, module_of(name_a), tensors[name_a].shape[0])
            tensors[name_b] = tensors[name_b] * (old[name_a] / new)
        write_adapter(sample, tensors, config)
