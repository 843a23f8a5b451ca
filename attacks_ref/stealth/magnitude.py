"""A LoRA adapter dressed as DoRA (arXiv 2402.09353): a magnitude per output row joins the factors.

DoRA reads m ⊙ (W + sBA)/‖W + sBA‖ row by row. With m = ‖W + sBA‖ nothing changes; with any other m the
rows are stretched, which the factors do not show.
"""

# ruff: noqa: ARG002 (not every transform needs all that the contract offers)

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from attacks_ref.stealth.tensors import (
    PREFIX,
    base_weights,
    lora_pairs,
    module_of,
    module_scaling,
    plain_lora,
    read_adapter,
    write_adapter,
)
from attacks_ref.stealth.transform import Transform


@dataclass(frozen=True, kw_only=True)
class Magnitude(Transform):
    """`use_dora` switched on, with the magnitudes the adapted rows have, stretched by `stretch`."""

    name: ClassVar[str] = "magnitude"

    stretch: float = 1.0
    """1 leaves ΔW as it is."""

    def apply(self, base: Path, sample: Path, *, seed: int) -> None:
        tensors, config = read_adapter(sample)
        plain_lora(tensors, config, self.name)
        weights, transposed = base_weights(base)
        for name_a, name_b in lora_pairs(tensors):
            module, a, b = module_of(name_a), tensors[name_a].float(), tensors[name_b].float()
            weight = weights[f"{module}.weight"].float()
            adapted = (weight.T if transposed(module) else weight) + (
                module_scaling(config, module, a.shape[0]) * b @ a
            )
            magnitude = adapted.norm(dim=1) * self.stretch
            tensors[f"{PREFIX}{module}.lora_magnitude_vector"] = magnitude.to(tensors[name_a].dtype)
        config["use_dora"] = True
        write_adapter(sample, tensors, config)
