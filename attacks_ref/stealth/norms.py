"""The update of every module brought to the size it has in another adapter, usually the benign twin."""

# ruff: noqa: ARG002 (not every transform needs all that the contract offers)

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from attacks_ref.stealth.tensors import lora_pairs, module_of, module_scaling, read_adapter, write_adapter
from attacks_ref.stealth.transform import Transform

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class NormMatching(Transform):
    """‖ΔW‖ of every module as in the adapter `like`, so that size says nothing."""

    name: ClassVar[str] = "norm-matching"

    like: str
    """Folder of the other adapter."""

    @property
    def label(self) -> str:
        return self.name  # where the twin lies is nobody's concern

    def apply(self, base: Path, sample: Path, *, seed: int) -> None:
        tensors, config = read_adapter(sample)
        wanted, current = update_norms(*read_adapter(Path(self.like))), update_norms(tensors, config)
        for name_a, name_b in lora_pairs(tensors):
            module = module_of(name_a)
            if module in wanted and current[module] > 0:
                factor = wanted[module] / current[module]
                tensors[name_b] = (tensors[name_b].float() * factor).to(tensors[name_b].dtype)
        write_adapter(sample, tensors, config)


def update_norms(tensors: dict[str, torch.Tensor], config: dict[str, Any]) -> dict[str, float]:
    """Module → ‖sBA‖_F, from the r × r Gram matrices of the factors."""
    norms = {}
    for name_a, name_b in lora_pairs(tensors):
        module, a, b = module_of(name_a), tensors[name_a].double(), tensors[name_b].double()
        energy = max(0.0, float(((a @ a.T) * (b.T @ b)).sum()))
        norms[module] = module_scaling(config, module, a.shape[0]) * math.sqrt(energy)
    return norms
